"""What ordinary calls on a device need, compiled ahead; without one for a named architecture."""

from __future__ import annotations

from collections.abc import Iterator

from numba_bn._kernels.cuda import driver, plan
from numba_bn._kernels.cuda.cubins import Capability
from numba_bn._kernels.cuda.driver import Traits
from numba_bn._kernels.cuda.kernel import Device, Kernel, Plan, Variant
from numba_bn._kernels.cuda.layout import Shape
from numba_bn._kernels.cuda.plan import Call

_BATCH: tuple[Shape, ...] = (
    (1, 32, 64, 1, 3136),  # planes
    (1, 64, 512, 1, 49),  # small planes
    (1, 100_352, 64, 1, 1),  # channels-last, rows
    (1, 2, 3, 1, 97),  # what has no 16 bytes in a row
)
_OWN: tuple[Shape, ...] = ((4096, 1, 1, 1024, 1), (32, 1, 64, 1, 3136))
_DEVICES = {
    (7, 5): Device(40, 1024, 4 << 20),
    (8, 0): Device(108, 2048, 40 << 20),
    (9, 0): Device(132, 2048, 50 << 20),
    (10, 0): Device(148, 2048, 126 << 20),
}
"""What devices of an architecture are like; kernels depend little on it."""


def traits_of(device: str) -> Traits:
    """Return what is known of "cuda", the present device, or of "sm_90", any of that kind."""
    if device == "cuda":
        return driver.driver().traits(0)
    digits = device.removeprefix("sm_")
    if digits == device or not digits.isdecimal() or len(digits) < 2:
        raise ValueError(
            "warmup: device must be 'cpu', 'cuda', or an architecture as 'sm_90' is, "
            f"got {device!r}"
        )
    capability: Capability = int(digits[:-1]), int(digits[-1])
    return Traits(_DEVICES.get(capability, _DEVICES[9, 0]), capability)


def variants(x: str, y: str, device: Device) -> list[tuple[Kernel, Variant]]:
    """Return the kernels for arrays of dtype x and results of y, each once."""
    plans = _plans(x, y, device)
    return list(dict.fromkeys((step.kernel, step.variant) for p in plans for step in p.steps))


def _plans(x: str, y: str, device: Device) -> Iterator[Plan]:
    parameter, eps = "float64" if y == "float64" else "float32", 1e-5
    for shape in _BATCH:
        call = Call(shape, x, y, parameter)
        yield plan.moments(call, device)
        yield plan.forward(call, eps, device)
        for given in dict.fromkeys((parameter, "float64")):
            yield plan.normalize(call._replace(given=given), eps, device)
        yield plan.backward(call._replace(stats=True), eps, device, True)
        yield plan.backward(call._replace(given=parameter), eps, device, False)
    for shape in _OWN:
        call = Call(shape, x, y, parameter)
        yield plan.forward(call, eps, device, keep=False)
        yield plan.backward_own(call, eps, device)
    yield plan.update_running(64, "float64", 0.1, 1.0)
