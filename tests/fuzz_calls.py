"""A call of a public function out of a row of small choices: valid, or spoilt here and there."""

import math
from typing import Any, NamedTuple

import numpy as np
from fuzz_strategies import (
    BAD_EPSILONS,
    BAD_INTEGERS,
    BAD_NAMES,
    BAD_STATISTICS,
    EPSILONS,
    REFUSED,
    Array,
    Choices,
    taken,
    values,
)
from table import result_dtype

import numba_bn as nbn

LENGTHS = [3, 1, 2, 5, 0, 17]
LARGE = (3, 6, 5000)
"""More bytes than a kernel takes before it goes parallel."""

KINDS = [
    *("batch", "batch-train", "batch-backward", "frozen", "frozen-backward"),
    *("instance", "instance-backward", "group", "group-backward"),
    *("layer", "layer-backward", "rms", "rms-backward", "stats", "fold"),
]
FUNCTIONS = {
    "batch-train": "batch_norm_train",
    "frozen": "batch_norm",
    "frozen-backward": "batch_norm_backward",
    "stats": "channel_stats",
    "fold": "fold_batch_norm",
}


class Call(NamedTuple):
    """What is called with what; ``doubtful`` are the arguments that may be refused."""

    kind: str
    arguments: dict[str, Any]
    doubtful: set[str]

    @property
    def function(self) -> str:
        norm, *backward = self.kind.split("-")
        return FUNCTIONS.get(self.kind) or "_".join([norm, "norm", *backward])


def call(choose: Choices) -> Call:
    """Make a call: right in all its arguments, one time in two; then some are spoilt."""
    kind = choose.pick(KINDS)
    arguments, doubtful = _fold(choose) if kind == "fold" else _norm(choose, kind)
    made = Call(kind, arguments, doubtful)
    for _ in range(choose.pick([0, 1, 0, 1, 2])):
        name = choose.pick(sorted(made.arguments))
        made.arguments[name] = _spoilt(choose, name, made.arguments)
        made.doubtful.add(name)
    return made


def _axes(choose: Choices, kind: str, ndim: int) -> tuple[int, ...]:
    """Return the channel axes, or the normalized ones."""
    if kind.startswith(("layer", "rms")):
        return tuple(range(-1 - choose.below(ndim), 0))
    first = int(kind.startswith(("instance", "group")))
    usual = min(1, ndim - 1)
    one = choose.pick([usual, -1, *range(first, ndim)])
    other = choose.pick([one, *range(first, ndim)])
    return (one,) if other % ndim == one % ndim else (one, other)


def _norm(choose: Choices, kind: str) -> tuple[dict[str, Any], set[str]]:
    """Return the arguments of a call on x."""
    least = 2 if kind.startswith(("instance", "group")) else 1
    shape = tuple(choose.pick(LENGTHS) for _ in range(least + choose.below(4 - least + 1)))
    shape = LARGE if choose.one_in(32) else shape
    axes = _axes(choose, kind, len(shape))
    own = sorted(a % len(shape) for a in axes)
    channels = tuple(shape[a] for a in own)
    x = taken(choose, values(choose, shape))
    plain = np.asarray(x)
    arguments: dict[str, Any] = {"x": x}
    doubtful: set[str] = set()
    name = "axis" if kind.startswith(("layer", "rms")) else "channel_axis"
    arguments[name] = axes if len(axes) > 1 else axes[0]
    if kind.startswith("group"):
        every = math.prod(channels)
        divisors = [d for d in range(1, every + 1) if every % d == 0] or [1]
        arguments["num_groups"] = choose.pick(divisors)
    if kind.startswith(("batch", "frozen", "stats")):
        arguments["where"] = mask = _mask(choose, shape)
        others = tuple(a for a in range(len(shape)) if a not in own)
        seen = np.any(np.ones(shape, bool) if mask is None else mask, axis=others)
        if kind.startswith("batch") and not np.all(seen):
            doubtful.add("x")  # nothing to take statistics of
    if kind == "stats":
        arguments["nan_policy"] = choose.pick(["propagate", "omit", "raise"])
        if arguments["nan_policy"] == "raise":
            doubtful.add("nan_policy")
        return arguments, doubtful
    arguments["eps"] = choose.pick(EPSILONS)
    for vector in _vectors(kind):
        optional = vector in ("gamma", "beta")
        given = not (optional and choose.one_in(3))
        arguments[vector] = taken(choose, values(choose, channels)) if given else None
    backward = kind.endswith("backward")
    other = None if choose.mixed else result_dtype(plain.dtype.newbyteorder("="))
    extra = ["dy"] if backward else ["residual"] if kind.startswith(("batch", "frozen")) else []
    for like in extra:
        given = backward or choose.one_in(3)
        arguments[like] = taken(choose, values(choose, shape, other)) if given else None
    if kind.startswith(("batch", "frozen")):
        arguments["activation"] = choose.pick([None, "relu"])
        if backward and arguments["activation"]:
            arguments["y"] = taken(choose, values(choose, shape, other))
    if kind == "batch-backward":
        arguments["stats"] = _stats(plain, arguments)
    arguments["out"] = _output(choose, plain, arguments, doubtful)
    return arguments, doubtful


def _vectors(kind: str) -> list[str]:
    frozen = ["mean", "var"] if kind.startswith("frozen") else []
    return ["gamma", *([] if kind.endswith("backward") or kind == "rms" else ["beta"]), *frozen]


def _mask(choose: Choices, shape: tuple[int, ...]) -> Any:
    """Return a mask that leaves something along every axis, or None."""
    if not choose.one_in(3):
        return None
    mask = np.random.default_rng(choose.below(8)).random(shape) < 0.6
    for axis in range(len(shape)):
        np.moveaxis(mask, axis, 0)[:1] = True
    return taken(choose, mask)


def _stats(x: Array, arguments: dict[str, Any]) -> nbn.ChannelStats:
    """Return the statistics of a training step, as it would have left them."""
    native = np.array(x, x.dtype.newbyteorder("="))
    named = {name: arguments[name] for name in ("channel_axis", "where")}
    return nbn.channel_stats(native, **named)


def _output(choose: Choices, x: Array, arguments: dict[str, Any], doubtful: set[str]) -> Any:
    """Return an array for the result: none, a new one, one of the inputs, or half of one."""
    dtype = result_dtype(x.dtype.newbyteorder("="))
    kind = choose.pick(["none", "none", "new", "F", "strided", "misaligned", "input", "shifted"])
    if kind == "none":
        return None
    new = np.full(x.shape, 7, dtype)
    if kind == "F":
        return np.asfortranarray(new)
    if kind == "strided" and x.ndim:
        return np.repeat(new[::-1], 2, axis=-1)[..., ::2]
    if kind == "misaligned" and new.size:
        return np.full(new.nbytes + 1, 7, np.uint8)[1:].view(dtype).reshape(x.shape)
    name = choose.pick(sorted(arguments.keys() & {"x", "dy", "residual", "y", "gamma"}))
    if kind == "input":
        doubtful.add("out")
        return arguments[name]
    if kind == "shifted":
        doubtful.add("out")
        memory = np.zeros(x.size + 1, dtype)
        given = memory[:-1].reshape(x.shape)
        if np.shape(arguments[name]) == x.shape:
            given[...] = np.asarray(arguments[name]).astype(dtype)
            arguments[name] = given
        return memory[1:].reshape(x.shape)
    return new


def _fold(choose: Choices) -> tuple[dict[str, Any], set[str]]:
    shape = tuple(choose.pick(LENGTHS) for _ in range(1 + choose.below(4)))
    axis = choose.pick([0, -1, len(shape) // 2])
    arguments: dict[str, Any] = {"weight": taken(choose, values(choose, shape))}
    arguments.update(output_axis=axis, eps=choose.pick(EPSILONS))
    for name in ("bias", "gamma", "beta", "mean", "var"):
        none = name not in ("mean", "var") and choose.one_in(3)
        vector = taken(choose, values(choose, (shape[axis],)))
        arguments[name] = None if none else vector
    return arguments, set()


def _array(value: Any) -> Array:
    """Return an argument as an array, if it has not been spoilt before."""
    return value if isinstance(value, np.ndarray) else np.ones((3, 3))


def _spoilt(choose: Choices, name: str, arguments: dict[str, Any]) -> Any:
    """Return something else for an argument: nearly always what is refused."""
    if name == "eps":
        return choose.pick(BAD_EPSILONS)
    if name in ("axis", "channel_axis", "output_axis", "num_groups"):
        return choose.pick(BAD_INTEGERS)
    if name in ("activation", "nan_policy"):
        return choose.pick(BAD_NAMES)
    like = arguments[name]
    if isinstance(like, nbn.ChannelStats):
        short = nbn.ChannelStats(*(np.ones(like.count.size + 1) for _ in range(3)))
        none = nbn.ChannelStats(np.zeros_like(like.count), like.mean, like.m2)
        return choose.pick([None, short, none, *BAD_STATISTICS])
    first = "weight" if "weight" in arguments else "x"
    array = _array(arguments[first] if like is None else like)
    if name == "where" and choose.one_in(4):
        return np.zeros(array.shape, bool)
    made = choose.pick(list(REFUSED))
    return None if made == "truth" and name in ("x", "weight", "dy") else REFUSED[made](array)
