"""Kernels × dtypes × architectures as machine code: no spills, wide accesses, in flight.

With and without all options, in both layouts; and the build of width one.
"""

import re

import pytest
from problems import AMPERE, DEVICE, EPS, TURING, named, ptx_of
from sass import access_bytes, assembled

from numba_bn._kernels.cuda import plan as plans
from numba_bn._kernels.cuda.kernel import Device
from numba_bn._kernels.cuda.plan import Call
from numba_bn._kernels.cuda.target import compiled

H200 = Device(multiprocessors=132, threads=2048, l2_bytes=50 << 20)
ARCHITECTURES = {"sm_75": TURING, "sm_90": AMPERE}
OTHERS, ON_ALL = {"sm_80": AMPERE, "sm_100": AMPERE}, ("float32", "bfloat16")
"""For which these dtypes alone are assembled too."""
_RESULT = dict.fromkeys(("int8", "uint8", "int16", "uint16"), "float32")
_RESULT |= dict.fromkeys(("int32", "uint32", "int64", "uint64"), "float64")
FLOATS = ("float32", "float64", "float16", "bfloat16")
WIDE = [*FLOATS, "uint8"]
"""Other integers have the vectors of floats as large; a sign changes nothing."""
NARROW = ["float64", "bfloat16", "uint8"]
"""One of each size of result, and what has the most to convert."""
PLANES, ROWS = (1, 32, 64, 1, 3136), (1, 65536, 1024, 1, 1)
LAYER, INSTANCE = (4096, 1, 1, 1024, 1), (32, 1, 64, 1, 784)
WRITERS = ("normalize", "forward", "input_gradient", "backward", "relu_gradient")
OWN = ("forward", "backward")
"""Kernels whose first loop takes the statistics that another uses."""


def calls(shape, dtype):
    y = _RESULT.get(dtype, dtype)
    parameter = "float64" if y == "float64" else "float32"
    call = Call(shape, dtype, y, parameter)
    return call, call._replace(masked=True, residual=True, relu=True)


def by_name(steps):
    """Launches by the name of kernel and variant, each once."""
    return {step.kernel.label(step.variant): step for step in steps}


def steps_of(dtype):
    """All launches of the plans of a dtype."""
    found = []
    for call in (*calls(PLANES, dtype), *calls(ROWS, dtype)):
        found += plans.forward(call, EPS, H200).steps + plans.backward(call, EPS, H200).steps
    for call in (*calls(LAYER, dtype), *calls(INSTANCE, dtype)):
        found += plans.forward(call, EPS, H200).steps + plans.backward_own(call, EPS, H200).steps
    found += plans.relu_gradient(call, H200).steps
    return by_name(step for step in found if step.kernel != plans.FOLD)


def narrow_of(dtype):
    """Launches of unaligned arrays: the build of width one. Executions need the same."""
    found = []
    for shape in ((1, 5, 3, 1, 601), (1, 500, 64, 1, 1)):
        call = calls(shape, dtype)[0]._replace(aligned=False)
        found += plans.moments(call, DEVICE).steps + plans.normalize(call, EPS, DEVICE).steps
        found += plans.forward(call, EPS, DEVICE).steps + plans.backward(call, EPS, DEVICE).steps
    return by_name(found)


def small():
    """Launches over statistics, in the dtypes these have."""
    found = []
    for dtype in ("float32", "float64"):
        call = calls(INSTANCE, dtype)[0]
        found += plans.backward_own(call, EPS, H200).steps[1:]
        found += plans.update_running(64, dtype, 0.1, 1.0).steps
    return by_name(found)


def machine_code(steps, folder, dtype, least=16):
    """Yield what each of the launches runs on each architecture, and its name."""
    architectures = ARCHITECTURES | (OTHERS if dtype in ON_ALL else {})
    for architecture, capability in architectures.items():
        modules = [ptx_of(step.kernel, step.variant, capability) for step in steps.values()]
        code = assembled(modules, architecture, folder, least)
        assert code.keys() == steps.keys()
        for label, machine in code.items():
            yield f"{label} {architecture}", machine


def assert_in_registers(label, code):
    """No value of a thread goes through memory."""
    assert code.stack == code.spilled == 0, (label, code)
    assert not any("LDL" in line or "STL" in line for line in code.accesses), label


def assert_wide(label, code):
    own = code.loops[:1] if label.startswith(OWN) else []
    main = max(code.loops[len(own) :], key=lambda loop: loop.in_flight)  # others take leftovers
    for loop in (*own, main):
        assert loop.in_flight >= 64, (label, loop, code.registers)
    if label.startswith(WRITERS):
        stores = [line for line in code.accesses if "STG" in line]
        assert max(map(access_bytes, stores)) == 16, (label, stores)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", WIDE)
def test_wide(dtype, tmp_path):
    """Bytes alone come 16 at once too, but where columns are summed up, 8 at once.

    A thread that summed up 16 columns would hold 64 registers of their sums. With a mask it spilled
    268 to 444 bytes on every architecture, whether it loaded two vectors at once or four; by 8
    columns, eight vectors at once, it has 128 registers and spills nothing.
    """
    least = min(8 * plans.itemsize(dtype), 16)
    for label, code in machine_code(steps_of(dtype), tmp_path, dtype, least):
        assert_in_registers(label, code)
        assert_wide(label, code)
        loads = [access_bytes(line) for line in code.accesses if "LDG" in line]
        assert max(loads) >= (16 if least == 16 or "_16_" in label else 8), label


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NARROW)
def test_narrow(dtype, tmp_path):
    for label, code in machine_code(narrow_of(dtype), tmp_path, dtype):
        assert_in_registers(label, code)
        assert max(map(access_bytes, code.accesses)) <= 8, label  # float64 statistics


@pytest.mark.slow
def test_small(tmp_path):
    steps = small()
    assert {step.kernel for step in steps.values()} == {plans.FOLD, plans.UPDATE_RUNNING}
    for label, code in machine_code(steps, tmp_path, "float32"):
        assert_in_registers(label, code)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int8", "int64"])
def test_what_is_compiled_together_is_what_is_compiled_alone(dtype):
    steps = steps_of(dtype).values()
    kernel, variant, *_ = next(s for s in steps if s.kernel == plans.MOMENTS and s.arguments[1])
    alone = compiled(kernel, variant, TURING, "ptx")
    found = ptx_of(kernel, variant, TURING), named(alone, kernel.label(variant))
    together, alone = (re.sub(r"_shared_\d+", "_shared", ptx) for ptx in found)  # counted by Numba
    assert together == alone
