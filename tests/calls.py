"""One valid call of every public function, to be spoilt an argument at a time. No tests."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import numba_bn as nbn
from numba_bn import _dispatch

SHAPE = (4, 6, 5)
CHANNELS, LENGTH = 6, 5
PARAMETERS = ("gamma", "beta", "mean", "var", "bias")
LIKE_X = ("dy", "y", "residual")


class Call(NamedTuple):
    """A public function and arguments that fit; ``parameters`` is the length of its vectors."""

    function: str
    arguments: Callable[[], dict[str, Any]]
    parameters: int = CHANNELS

    def __call__(self, **changes: Any) -> Any:
        """Call the function, some arguments changed."""
        return getattr(nbn, self.function)(**{**self.arguments(), **changes})


def x() -> np.ndarray:
    """An array to normalize."""
    return np.linspace(-3.0, 7.0, 4 * 6 * 5, dtype=np.float32).reshape(SHAPE)


def vector(size: int = CHANNELS) -> np.ndarray:
    """A parameter, or a variance."""
    return np.linspace(0.5, 2.0, size, dtype=np.float32)


def stats() -> nbn.ChannelStats:
    """Statistics of a training step on x, without computing them."""
    return nbn.ChannelStats(np.full(CHANNELS, 20.0), np.ones(CHANNELS), np.full(CHANNELS, 90.0))


def _norm(size: int = CHANNELS, **more: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"x": x(), "gamma": vector(size), "beta": vector(size), **more}


def _gradient(size: int = CHANNELS, **more: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"dy": x(), "x": x(), "gamma": vector(size), **more}


def _frozen() -> dict[str, Any]:
    return {"mean": vector(), "var": vector()}


def _weights() -> dict[str, Any]:
    vectors = {name: vector(4) for name in ("bias", "gamma", "beta", "mean", "var")}
    return {"weight": x(), **vectors}


CALLS = {
    "batch_norm": Call("batch_norm", lambda: {**_norm()(), "residual": x()}),
    "batch_norm-given": Call("batch_norm", lambda: {**_norm()(), **_frozen(), "residual": x()}),
    "batch_norm_train": Call("batch_norm_train", lambda: {**_norm()(), "residual": x()}),
    "batch_norm_backward": Call("batch_norm_backward", lambda: _gradient(stats=stats())()),
    "batch_norm_backward-relu": Call(
        "batch_norm_backward", lambda: _gradient(stats=stats(), activation="relu", y=x())()
    ),
    "batch_norm_backward-given": Call("batch_norm_backward", lambda: _gradient(**_frozen())()),
    "instance_norm": Call("instance_norm", _norm()),
    "instance_norm_backward": Call("instance_norm_backward", _gradient()),
    "group_norm": Call("group_norm", _norm(num_groups=2)),
    "group_norm_backward": Call("group_norm_backward", _gradient(num_groups=2)),
    "layer_norm": Call("layer_norm", _norm(LENGTH), LENGTH),
    "layer_norm_backward": Call("layer_norm_backward", _gradient(LENGTH), LENGTH),
    "rms_norm": Call("rms_norm", lambda: {"x": x(), "gamma": vector(LENGTH)}, LENGTH),
    "rms_norm_backward": Call("rms_norm_backward", _gradient(LENGTH), LENGTH),
    "channel_stats": Call("channel_stats", lambda: {"x": x()}),
    "fold_batch_norm": Call("fold_batch_norm", _weights, 4),
}
"""By function, and the way it is used."""

NORMS = [name for name in CALLS if name not in ("channel_stats", "fold_batch_norm")]
"""The calls that have an output."""

TAKES_WHERE = [name for name in CALLS if name.startswith(("batch", "channel"))]
TRAINS = ["batch_norm", "batch_norm_train"]


def places(*names: str) -> list[tuple[str, str]]:
    """Every call that has an argument of one of these names, with that name."""
    found = [(call, n) for call in CALLS for n in names if n in CALLS[call].arguments()]
    assert found, names
    return found


def _bytes(value: Any) -> Any:
    """What an argument holds, to see whether it changed."""
    if isinstance(value, nbn.ChannelStats):
        return [_bytes(v) for v in (value.count, value.mean, value.m2)]
    return value.tobytes() if isinstance(value, np.ndarray) else None


def refuses(call: str, error: type[Exception], text: str, **changes: Any) -> None:
    """Assert that a spoilt call raises just this, and leaves all of its arguments alone."""
    arguments = {**CALLS[call].arguments(), **changes}
    before = {name: _bytes(value) for name, value in arguments.items()}
    with pytest.raises(error) as caught:
        getattr(nbn, CALLS[call].function)(**arguments)
    assert type(caught.value) is error
    assert str(caught.value) == text
    assert {name: _bytes(value) for name, value in arguments.items()} == before


def forbid_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be computed, compiled or loaded: an error comes before all of that."""

    def touched(*_: object) -> None:
        pytest.fail("a backend was asked for before the arguments were checked")

    for name in nbn.__all__:
        getattr(nbn, name)  # all names are lazy: load their modules
    holders = [m for n, m in sys.modules.items() if n.startswith("numba_bn.")]
    holders = [m for m in holders if getattr(m, "backend", None) is _dispatch.backend]
    assert len(holders) > 3  # the dispatcher itself and those who import it
    for module in holders:
        monkeypatch.setattr(module, "backend", touched)
