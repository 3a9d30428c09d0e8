"""The calls that are measured, and the arrays they are given."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

import numba_bn as nbn

from .cases import Case

Array = np.ndarray[Any, np.dtype[Any]]
Call = Callable[[], object]


def values(case: Case, seed: int = 0) -> Array:
    """Return the array of a case: a quarter of a million random numbers, over and over."""
    some = np.random.default_rng(seed).normal(5.0, 3.0, 1 << 18)
    if case.numpy_dtype.kind in "ui":
        some = np.abs(some)
    return np.resize(some.astype(case.numpy_dtype), case.stored)


class Work:
    """The arrays of a case, their pages touched."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.axis = case.axis
        self.x = values(case)
        integers = self.x.dtype.kind in "ui"
        self.floating = case._replace(dtype="float32") if integers else case
        self.out = values(self.floating)
        self.gamma, self.beta, self.mean, self.var = (
            np.linspace(0.5, 1.5, case.channels, dtype=np.float32) for _ in range(4)
        )
        self.groups = case.groups

    @cached_property
    def dy(self) -> Array:
        return values(self.floating, seed=1)

    @cached_property
    def stats(self) -> nbn.ChannelStats:
        return nbn.channel_stats(self.x, channel_axis=self.axis)

    def call(self, operation: str, out: bool = True) -> Call:
        """Return an operation as a call without arguments, into a given array or a new one."""
        function, given = OPERATIONS[operation], self.out if out else None
        return lambda: function(self, given)


def _inference(w: Work, out: Array | None) -> object:
    return nbn.batch_norm(
        w.x, w.gamma, w.beta, mean=w.mean, var=w.var, channel_axis=w.axis, out=out
    )


def _train(w: Work, out: Array | None) -> object:
    return nbn.batch_norm_train(w.x, w.gamma, w.beta, channel_axis=w.axis, out=out)


def _backward(w: Work, out: Array | None) -> object:
    return nbn.batch_norm_backward(w.dy, w.x, w.gamma, stats=w.stats, channel_axis=w.axis, out=out)


def _statistics(w: Work, out: Array | None) -> object:
    return nbn.channel_stats(w.x, channel_axis=w.axis)


def _instance(w: Work, out: Array | None) -> object:
    return nbn.instance_norm(w.x, w.gamma, w.beta, channel_axis=w.axis, out=out)


def _instance_backward(w: Work, out: Array | None) -> object:
    return nbn.instance_norm_backward(w.dy, w.x, w.gamma, channel_axis=w.axis, out=out)


def _group(w: Work, out: Array | None) -> object:
    return nbn.group_norm(w.x, w.groups, w.gamma, w.beta, channel_axis=w.axis, out=out)


def _group_backward(w: Work, out: Array | None) -> object:
    return nbn.group_norm_backward(w.dy, w.x, w.groups, w.gamma, channel_axis=w.axis, out=out)


OPERATIONS: dict[str, Callable[[Work, Array | None], object]] = {
    "inference": _inference,
    "train": _train,
    "backward": _backward,
    "statistics": _statistics,
    "instance": _instance,
    "instance backward": _instance_backward,
    "group": _group,
    "group backward": _group_backward,
    "layer": lambda w, out: nbn.layer_norm(w.x, w.gamma, w.beta, out=out),
    "layer backward": lambda w, out: nbn.layer_norm_backward(w.dy, w.x, w.gamma, out=out),
    "rms": lambda w, out: nbn.rms_norm(w.x, w.gamma, out=out),
    "rms backward": lambda w, out: nbn.rms_norm_backward(w.dy, w.x, w.gamma, out=out),
}
BACKWARD = tuple(name for name in OPERATIONS if name.endswith("backward"))
FORWARD = tuple(name for name in OPERATIONS if name not in (*BACKWARD, "statistics"))


def applies(operation: str, case: Case) -> bool:
    """Tell whether an operation means something for a shape: rows for some, images for others."""
    norm = operation.split()[0]
    if norm in ("layer", "rms"):
        return len(case.shape) == 2
    return norm not in ("instance", "group") or len(case.shape) > 2


@lru_cache(maxsize=1)
def work_of(case: Case) -> Work:
    """Return the arrays of a case; the last ones are kept, as asv sets up before each sample."""
    return Work(case)
