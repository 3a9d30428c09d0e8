"""What a layer is given, and keeps: a dtype, x of the right shape, with enough to train on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numba_bn import _validate as check
from numba_bn._adapters._convert import kind_of
from numba_bn._arrays import Array, is_float, kind, parameter_dtype
from numba_bn._device import DeviceArray
from numba_bn.stats.device import beside

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


class Step(NamedTuple):
    """What a forward leaves for its backward."""

    x: Array
    where: Any
    statistics: dict[str, Any]


def dtype_of_parameters(call: str, dtype: DTypeLike) -> np.dtype[Any]:
    """Return the dtype that gamma and beta are to have."""
    try:
        found = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(f"{call}: dtype must name a dtype, got {dtype!r}: {error}") from None
    if not is_float(found):
        raise TypeError(f"{call}: dtype must be a real floating-point dtype, got {found}")
    return parameter_dtype(found)


def axis_of_channels(
    call: str, x: Array, dims: tuple[int, ...], channel_axis: int, channels: int
) -> int:
    """Return the axis of x that has the channels; raise if there are others, or other dims."""
    shape = x.shape
    if dims and len(shape) not in dims:
        wanted = " or ".join(f"{n}-D" for n in dims)
        raise ValueError(f"{call}: expected {wanted} x, got {len(shape)}-D of shape {shape}")
    (axis,) = check.axis_tuple(call, "channel_axis", channel_axis, shape)
    if shape[axis] != channels:
        raise ValueError(
            f"{call}: expected {channels} channels along axis {channel_axis}, got "
            f"{shape[axis]} for x of shape {shape}"
            + check.fitting_axis((channels,), shape, "channel_axis")
        )
    return axis


def more_than_one_value(call: str, x: Array, mask: Array | None, axis: int) -> None:
    """Raise if a channel has but one value, of which there is no variance to train on."""
    if mask is None or kind(mask) == "cuda":  # which is not waited for
        too_few = x.size == x.shape[axis]
    else:
        values = np.count_nonzero(mask, axis=tuple(a for a in range(x.ndim) if a != axis))
        too_few = bool(np.equal(values, 1).any())
    if too_few:
        masked = "" if mask is None else " with this where"
        raise ValueError(
            f"{call}: expected more than 1 value per channel in training, "
            f"got x of shape {x.shape}{masked}"
        )


def in_place_of_x(call: str, dy: Any, x: Array) -> None:
    """Raise unless dy is where the layer's last x is: in the CPU's memory, or on a device."""
    if isinstance(dy, DeviceArray) is not isinstance(x, DeviceArray):
        there, here = (
            f"cuda:{a.ordinal}" if isinstance(a, DeviceArray) else "the CPU" for a in (x, dy)
        )
        raise TypeError(
            f"{call}.backward: dy must be where the last x is, on {there}, got "
            f"{kind_of(getattr(dy, 'owner', dy))} on {here}"
        )


def moved(held: dict[str, Any], like: Any) -> dict[str, Any]:
    """Return those of some arrays that are not where ``like`` is, moved there."""
    new = {name: beside(value, like) for name, value in held.items()}
    return {name: value for name, value in new.items() if value is not held[name]}
