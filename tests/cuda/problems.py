"""Plans run by the PTX interpreter, beside the reference backend. No tests."""

import hashlib
import os
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import ml_dtypes
import numpy as np
import ptx_machine
import pytest
from ptx_memory import GlobalMemory
from ptx_program import Program, parse

pytest.importorskip("numba_cuda", reason="needs numba-cuda: the extra cuda")

from numba_bn._kernels import reference
from numba_bn._kernels.cuda import cubins
from numba_bn._kernels.cuda import plan as plans
from numba_bn._kernels.cuda.kernel import COUNTERS, Device, Kernel, Plan, Variant
from numba_bn._kernels.cuda.plan import Call
from numba_bn._kernels.cuda.target import compiled

Array = np.ndarray
Shape = tuple[int, int, int, int, int]

DEVICE = Device(multiprocessors=4, threads=2048, l2_bytes=1 << 20)
"""Small, so that small shapes are cut as large ones are on a large one."""

EPS = 1e-3
TURING, AMPERE = (7, 5), (8, 0)
_SUMS = frozenset({plans.MOMENTS, plans.GRADIENT_SUMS, plans.SUMS_BY_ROW})
_VALUES = frozenset({"x", "y", "dy", "dx", "residual", "where"})
_PARAMETERS = frozenset({"gamma", "beta"})
_NAMES = {"bfloat16": ml_dtypes.bfloat16}


def dtype_of(name: str) -> np.dtype:
    return np.dtype(_NAMES.get(name, name))


@cache
def _sources() -> str:
    """Name what PTX is made from."""
    folder = Path(plans.__file__).parent
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    versions = repr([np.__version__, *map(cubins._version, cubins._PACKAGES)]).encode()
    return hashlib.sha256(text + versions).hexdigest()[:16]


@lru_cache(maxsize=512)
def ptx_of(kernel: Kernel, variant: Variant, capability: tuple[int, int] = AMPERE) -> str:
    """Return a kernel's PTX for devices from a capability on.

    It is made once for all test processes and runs of the same sources; that for the oldest devices
    serves the others too, but there is an instruction that rounds to bfloat16 from Ampere on.
    """
    rounds = "bfloat16" in variant and kernel not in _SUMS
    oldest = AMPERE if rounds and capability >= AMPERE else TURING
    path = _place(kernel, variant, oldest)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        for each, ptx in _with_signs(kernel, variant, oldest).items():
            made = path.with_suffix(f".{os.getpid()}")
            made.write_text(named(ptx, kernel.label(each)))
            made.replace(_place(kernel, each, oldest))
    return path.read_text()


def _place(kernel: Kernel, variant: Variant, oldest: tuple[int, int]) -> Path:
    """Where the PTX of a kernel is kept."""
    name = f"{kernel.label(variant)}.{oldest[0]}{oldest[1]}.ptx"
    return Path(__file__).parent / "__pycache__" / "ptx" / _sources() / name


def _with_signs(kernel: Kernel, variant: Variant, oldest: tuple[int, int]) -> dict[Variant, str]:
    """Compile a variant; of integers that without and that with a sign, by variant.

    Numba takes longer than NVVM, and makes all of them alike but for the instruction that converts
    what is loaded.
    """
    from numba.cuda.cudadrv import nvvm  # not before our module that imports Numba's CUDA

    dtype, *rest = variant
    plain = (f"u{dtype}" if str(dtype).startswith("int") else dtype, *rest)
    if not str(plain[0]).startswith("uint"):
        return {variant: compiled(kernel, variant, oldest, "ptx")}
    converts = re.compile(rf'(%"{plain[0]}[.\d]*" = )uitofp\b')
    compile_ir, signed = nvvm.compile_ir, []

    def both(modules: list[str], **options: Any) -> bytes:
        others = [converts.sub(r"\1sitofp", module) for module in modules]
        assert others != modules, f"{plain} converts nothing"
        signed.append(compile_ir(others, **options))
        return compile_ir(modules, **options)

    with mock.patch.object(nvvm, "compile_ir", both):
        ptx = compiled(kernel, plain, oldest, "ptx")
    return {plain: ptx, (plain[0][1:], *rest): signed[0].decode().strip("\0").strip()}


def named(ptx: str, label: str) -> str:
    """Name the entry and the shared arrays after the kernel: several may go into one file.

    What Numba leaves for Python's sake, which no kernel uses, may be there twice, so it goes.
    """
    ptx = re.sub(r"^\.common .*NumbaEnv.*\n", "", ptx, flags=re.M)
    entry = re.search(r"\.entry\s+([\w$]+)", ptx)
    assert entry, f"no entry in the PTX of {label}"
    return ptx.replace(entry.group(1), label).replace("_cudapy_smem", f"{label}_shared")


@lru_cache(maxsize=512)
def program_of(kernel: Kernel, variant: Variant) -> Program:
    return parse(ptx_of(kernel, variant))


class Run(NamedTuple):
    """What a plan left behind."""

    results: dict[str, Array]
    memory: GlobalMemory


def execute(
    plan: Plan,
    arrays: dict[str, Array],
    results: dict[str, tuple[tuple[int, ...], Any]],
    seed: int = 0,
    offset: int = 0,
    programs: Any = program_of,
) -> Run:
    """Run a plan; those of x's shape lie ``offset`` bytes off where they would be aligned.

    Parameters then lie one of their values off.
    """
    nbytes = sum(a.nbytes for a in arrays.values()) + plan.workspace
    nbytes += sum(int(np.prod(s)) * np.dtype(d).itemsize for s, d in results.values())
    memory = GlobalMemory(nbytes + 1024 * (len(arrays) + len(results) + 2))
    off = {name: offset if name in _VALUES else 0 for name in (*arrays, *results)}
    if offset:
        off |= {name: arrays[name].itemsize for name in _PARAMETERS & arrays.keys()}
    at = {name: memory.put(array, off[name]) for name, array in arrays.items()}
    for name, (shape, dtype) in results.items():
        if name not in at:
            at[name] = memory.empty(int(np.prod(shape)) * np.dtype(dtype).itemsize, off[name])
    if plan.workspace:
        at["workspace"] = memory.put_zeros(COUNTERS, plan.workspace)
    for step in plan.steps:
        arguments = tuple(_address(a, at) for a in step.arguments)
        launch = ptx_machine.Launch(step.grid, step.block, arguments, seed)
        ptx_machine.run(programs(step.kernel, step.variant), memory, launch)
    if plan.workspace:
        assert not memory.get(at["workspace"], (COUNTERS,), np.uint8).any(), "counters left behind"
    return Run({n: memory.get(at[n], s, d) for n, (s, d) in results.items()}, memory)


def _address(argument: str | int | float, at: dict[str, int]) -> int | float:
    if not isinstance(argument, str):
        return argument
    name, _, offset = argument.partition("+")
    return at[name] + int(offset or 0)


class Problem:
    """The arrays of a call, by the names plans have for them."""

    def __init__(self, call: Call, seed: int = 0, mean: float = 30.0, std: float = 20.0) -> None:
        self.call = call
        shape, rng = call.shape, np.random.default_rng([seed, *call.shape])
        x = rng.normal(mean, std, shape)
        if call.x[0] in "iu":
            x = np.clip(np.rint(x), 0, 120)
        channels = shape[2] * shape[3]
        result, parameter = dtype_of(call.y), dtype_of(call.parameter)
        self.arrays: dict[str, Array] = {
            "x": x.astype(dtype_of(call.x)),
            "dy": rng.normal(0.3, 1.0, shape).astype(result),
            "residual": rng.normal(size=shape).astype(result),
            "where": (rng.random(shape) < 0.6).astype(np.uint8),
            "gamma": rng.normal(size=channels).astype(parameter),
            "beta": rng.normal(size=channels).astype(parameter),
        }
        self.where = self.arrays["where"].astype(bool) if call.masked else None
        self.residual = self.arrays["residual"] if call.residual else None
        count, mean_, low, m2 = self.moments()
        var = m2 / np.maximum(count, 1.0)
        self.arrays |= {"count": count, "mean": mean_, "low": low, "m2": m2, "var": var}

    def moments(self) -> reference.Moments:
        return reference.moments(self.arrays["x"], self.where)

    def parameter(self, name: str) -> Array:
        """Return gamma or beta as the reference wants it."""
        channels, default = self.call.shape[2] * self.call.shape[3], float(name == "gamma")
        there = self.call.gamma if name == "gamma" else self.call.beta
        return self.arrays[name].astype(np.float64) if there else np.full(channels, default)

    def gradient_size(self, centred: bool = True) -> float:
        """Return how large the terms are that dx is the sum of."""
        var, mean = self.arrays["var"], self.arrays["mean"]
        rstd = 1.0 / np.sqrt((var if centred else var + mean**2) + EPS)
        weighted = np.abs(self.parameter("gamma")).max() * np.abs(self.arrays["dy"]).max()
        return float(weighted * rstd.max())

    def run(self, plan: Plan, *names: str, **options: Any) -> Run:
        """Run a plan; ``names`` are those of its results."""
        batch, _, groups, size, _ = self.call.shape
        per_group, per_channel = ((batch, groups), np.float64), ((groups * size,), np.float64)
        like_x = self.call.shape, dtype_of(self.call.y)
        kinds = dict.fromkeys(("count", "mean", "low", "m2"), per_group)
        kinds |= {"dgamma": per_channel, "dbeta": per_channel, "y": like_x, "dx": like_x}
        arrays = {n: a for n, a in self.arrays.items() if n not in names}
        used = {a.partition("+")[0] for s in plan.steps for a in s.arguments if isinstance(a, str)}
        arrays = {n: a for n, a in arrays.items() if n in used}
        return execute(plan, arrays, {n: kinds[n] for n in names}, **options)


def assert_near(got: Array, want: Array, dtype: np.dtype, scale: Any = 1.0) -> None:
    """Compare with the reference, in units in the last place of ``dtype`` at a size of ``scale``.

    What is written in float32 is right to a few of them; halves to half of one, and those.
    """
    got, want = got.astype(np.float64), np.asarray(want, np.float64)
    unit = float(ml_dtypes.finfo(dtype).eps)
    size = np.maximum(np.abs(want), scale)
    allowed = {2: 0.51 * unit + 8e-7, 4: 8 * unit, 8: 64 * unit}[dtype.itemsize]
    error = np.abs(got - want) / size
    assert np.array_equal(np.isnan(got), np.isnan(want))
    assert not (error > allowed).any(), f"off by {np.nanmax(error):.2e}, allowed {allowed:.2e}"
