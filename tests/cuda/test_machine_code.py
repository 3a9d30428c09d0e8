"""Every kernel × dtype × architecture as machine code: no spills, wide accesses, in flight."""

import pytest
from problems import AMPERE, DEVICE, EPS, ptx_of
from sass import access_bytes, assembled

from numba_bn._kernels.cuda import plan as plans
from numba_bn._kernels.cuda.kernel import Device
from numba_bn._kernels.cuda.plan import Call

H200 = Device(multiprocessors=132, threads=2048, l2_bytes=50 << 20)
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")  # PTX for the first serves all
TURING = (7, 5)
_RESULT = {"uint8": "float32", "int32": "float64"}
DTYPES = ["float32", "float64", "float16", "bfloat16", *_RESULT]
PLANES, ROWS, LAYER = (1, 32, 64, 1, 3136), (1, 65536, 1024, 1, 1), (4096, 1, 1, 1024, 1)


def calls(shape, dtype):
    y = _RESULT.get(dtype, dtype)
    parameter = "float64" if y == "float64" else "float32"
    call = Call(shape, dtype, y, parameter)
    return call, call._replace(masked=True, residual=True, relu=True)


def steps_of(dtype):
    """All launches of the plans of a dtype, by the name of kernel and variant."""
    found = []
    for shape in (PLANES, ROWS):
        for call in calls(shape, dtype):
            found += plans.forward(call, EPS, H200).steps + plans.backward(call, EPS, H200).steps
    layer = calls(LAYER, dtype)[0]
    found += plans.forward(layer, EPS, H200).steps + plans.backward_own(layer, EPS, H200).steps
    found += plans.relu_gradient(layer, H200).steps
    return {step.kernel.label(step.variant): step for step in found}


def narrow_of(dtype):
    """Launches of unaligned arrays: the build of width one."""
    found = []
    for shape in (PLANES, ROWS):
        call = calls(shape, dtype)[0]._replace(aligned=False)
        found += plans.forward(call, EPS, DEVICE).steps + plans.backward(call, EPS, DEVICE).steps
    return {step.kernel.label(step.variant): step for step in found}


def assert_wide(dtype, capability, architectures, folder):
    for label, step in steps_of(dtype).items():
        ptx = ptx_of(step.kernel, step.variant, capability)
        for architecture in architectures:
            assert_good(dtype, f"{label} {architecture}", assembled(ptx, architecture, folder))


def assert_good(dtype, label, code):
    assert code.stack == code.spilled == 0, (label, code)
    assert not any("LDL" in line or "STL" in line for line in code.accesses), label
    if plans.itemsize(dtype) > 1:  # bytes come eight at a time
        main = max(code.loops, key=lambda loop: loop.wide)
        # what a team reads again is in the cache
        least = 32 if label.startswith(("forward", "backward")) else 64
        assert main.wide >= 64, (label, main)
        assert main.in_flight >= least, (label, main, code.registers)
    assert max(map(access_bytes, code.accesses)) >= 8, label


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_wide(dtype, tmp_path):
    assert_wide(dtype, AMPERE, ARCHITECTURES, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_wide_without_instructions_for_bfloat16(dtype, tmp_path):
    assert_wide(dtype, TURING, ["sm_75"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_narrow(dtype, tmp_path):
    for label, step in narrow_of(dtype).items():
        ptx = ptx_of(step.kernel, step.variant)
        for architecture in ARCHITECTURES:
            code = assembled(ptx, architecture, tmp_path)
            assert code.stack == code.spilled == 0, (label, code)
            assert max(map(access_bytes, code.accesses)) <= 8, label  # float64 statistics
