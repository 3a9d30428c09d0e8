"""Norms over large arrays: time, fraction of the measured copy bandwidth, ratio to PyTorch."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from _gpu_clock import Clock, lacking

import numba_bn as nbn
from numba_bn._kernels import _store

Calls = list[Callable[[], Any]]


class Shape(NamedTuple):
    """An array: its shape, dtype, and whether its memory is channels-last."""

    shape: tuple[int, ...]
    dtype: str
    channels_last: bool

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * (4 if self.dtype == "float32" else 2)

    @property
    def label(self) -> str:
        layout = "last" if self.channels_last else "first"
        return f"{'x'.join(map(str, self.shape))} {self.dtype} channels {layout}"


SIZES = [
    *((32, 64, 56, 56), (64, 2048, 7, 7), (256, 64, 112, 112), (256, 256, 56, 56)),
    *((128, 512, 28, 28), (64, 16, 512, 512), (65536, 1024)),
]
PASSES = {"statistics": 1, "inference": 2, "dx alone": 3, "forward": 3, "backward": 5}
"""How often the bytes of the array move at least."""
WANTED = {"statistics": 0.92, "inference": 0.92, "dx alone": 0.92, "forward": 0.9, "backward": 0.9}
"""The fraction of the copy bandwidth that arrays of at least ``LARGE`` bytes should reach."""
LARGE = 134_000_000
MIDDLE = Shape((32, 64, 56, 56), "float32", False)
WANTED_OF_MIDDLE = {"forward": 22.0, "backward": 34.0}
"""Microseconds that a pass over the 25.7 MB of ``MIDDLE`` should take at most."""
WANTED_OF_RATIOS = {True: {"lowest": 1.0}, False: {"lowest": 1.0, "geometric mean": 1.5}}
"""How much faster than PyTorch's best, by whether channels are last."""


def table(clock: Clock) -> list[Shape]:
    """Return what is measured."""
    sizes = [(2, 8, 8, 8), (64, 32)] if clock.quick else SIZES
    dtypes = ["float32", "bfloat16"]
    layouts = {2: [True], 4: [False, True]}
    return [Shape(s, d, last) for s in sizes for d in dtypes for last in layouts[len(s)]]


def bandwidth(clock: Clock) -> dict[str, float]:
    """Return the bytes a second of a copy, read and written counted, by the size of the array."""
    sizes = [1 << 16] if clock.quick else [25_690_112, 134_217_728, 822_083_584]
    result = {}
    for size in sizes:
        number = clock.sets(2 * size)
        pairs = [[clock.array((size // 4,), "float32") for _ in range(2)] for _ in range(number)]
        calls = [lambda a=a, b=b: a.copy_(b) for a, b in pairs]
        result[f"{size} bytes"] = 2 * size / clock.seconds(calls)
    return result


def measured(
    clock: Clock, keep: Callable[[dict[str, Any]], None], before: dict[str, Any]
) -> dict[str, Any]:
    """Return, for every shape, what each pass takes and how that compares.

    What there is so far is kept after each shape, as a run that is cut short leaves no more. What
    an earlier run of the same sources on the same kind of device has is taken from ``before``.
    """
    copy = max(bandwidth(clock).values())
    sources = (_store.sources() or b"").hex()
    about = {"device": clock.device_facts()["device"], "sources": sources}
    rows = _known(clock, before) if about.items() <= before.items() else {}
    known = {shape.label: row for shape, row in rows.items()}
    found: dict[str, Any] = {**about, "copy bytes/s": copy, "summary": summary(rows), **known}
    for shape in table(clock):
        if shape in rows:
            continue
        if reason := lacking(shape.dtype) or clock.late():
            found[shape.label] = {"skipped": reason}
        else:
            found[shape.label] = _tried(clock, shape, copy)
            if "failed" not in found[shape.label]:
                rows[shape] = found[shape.label]
        found["summary"] = summary(rows)
        keep(found)
    return found


def _known(clock: Clock, before: dict[str, Any]) -> dict[Shape, dict[str, Any]]:
    """Return the rows that an earlier run measured."""
    rows = {shape: before.get(shape.label, {"skipped": "not begun"}) for shape in table(clock)}
    return {s: row for s, row in rows.items() if not row.keys() & {"skipped", "failed"}}


def _tried(clock: Clock, shape: Shape, copy: float) -> dict[str, Any]:
    """Return a row, or why there is none: each shape stands for itself."""
    try:
        with clock.aside():
            return _compared(clock, shape, copy)
    except Exception as error:
        return {"failed": repr(error), "where": traceback.format_exc()}


def summary(rows: dict[Shape, dict[str, Any]]) -> dict[str, Any]:
    """Return the lowest fractions of large arrays beside those wanted, and ratios to PyTorch."""
    found: dict[str, Any] = {}
    for name, wanted in WANTED.items():
        fractions = [r[name]["fraction of copy"] for shape, r in rows.items()
                     if name in r and shape.nbytes >= LARGE]  # fmt: skip
        if fractions:
            found[f"{name}, lowest fraction of copy"] = {"is": min(fractions), "wanted": wanted}
    for name, wanted in WANTED_OF_MIDDLE.items():
        if MIDDLE in rows:
            found[f"{name}, us of 25.7 MB"] = {"is": rows[MIDDLE][name]["us"], "wanted": wanted}
    return found | _ratios(rows) | _read_once(rows) | _by_the_host(rows)


def _ratios(rows: dict[Shape, dict[str, Any]]) -> dict[str, Any]:
    """Return how much faster than PyTorch's best, in each layout."""
    found: dict[str, Any] = {}
    for last, layout in ((False, "first"), (True, "last")):
        each = [
            row[name]["x best of PyTorch"]
            for shape, row in rows.items()
            for name in ("forward", "backward")
            if shape.channels_last is last and "x best of PyTorch" in row[name]
        ]
        if each:
            mean = math.exp(sum(map(math.log, each)) / len(each))
            wanted = {"wanted": WANTED_OF_RATIOS[last]}
            ratio = {"lowest": min(each), "geometric mean": mean, **wanted}
            found[f"x best of PyTorch, channels {layout}"] = ratio
    return found


def _read_once(rows: dict[Shape, dict[str, Any]]) -> dict[str, Any]:
    """Return the most that one launch for a whole forward could gain where channels are first.

    As it would move the bytes of inference, it cannot take less time; below 1.1 none is worth it.
    """
    gains = [
        row["forward"]["us"] / row["inference"]["us"]
        for shape, row in rows.items()
        if not shape.channels_last and "inference" in row
    ]
    return {"forward, x inference, channels first: highest": max(gains)} if gains else {}


def _by_the_host(rows: dict[Shape, dict[str, Any]]) -> dict[str, Any]:
    """Name what no graph was recorded of: its time has the host's in it. Ours is a failure."""
    ours, theirs = [], []
    for shape, row in rows.items():
        for name, entry in row.items():
            ours += [f"{shape.label}, {name}"] * (entry.get("recorded") is False)
            theirs += [
                f"{shape.label}, {name}, {key.removesuffix(' recorded')}"
                for key, value in entry.items()
                if key.endswith(" recorded") and value is False
            ]
    found: dict[str, Any] = {"not recorded: ours": {"failed": ours}} if ours else {}
    return found | ({"not recorded: PyTorch's": theirs} if theirs else {})


def _compared(clock: Clock, shape: Shape, copy: float) -> dict[str, Any]:
    ours, theirs = _ours(clock, shape), _pytorchs(clock, shape)
    row: dict[str, Any] = {}
    for name, calls in ours.items():
        seconds = clock.seconds(calls)
        recorded, others = clock.recorded, []
        row[name] = {
            "us": seconds * 1e6,
            "fraction of copy": PASSES[name] * shape.nbytes / copy / seconds,
            "recorded": recorded,
        }
        for peer, ways in theirs.items():
            if name in ways:
                other = clock.seconds(ways[name])
                row[name] |= {f"us of {peer}": other * 1e6, f"{peer} recorded": clock.recorded}
                if clock.recorded == recorded:  # a graph beside calls would compare the hosts
                    others.append(other)
        if others:
            row[name]["x best of PyTorch"] = min(others) / seconds
    return row


def _arrays(clock: Clock, shape: Shape) -> list[tuple[Any, Any, Any]]:
    """Return x, dy and room for a result, as many times as needed to be out of the cache."""
    options = shape.shape, shape.dtype, shape.channels_last
    number = clock.sets(3 * shape.nbytes)
    sets = [[clock.array(*options) for _ in range(3)] for _ in range(number)]
    return [(x, dy, out) for x, dy, out in sets]


def _ours(clock: Clock, shape: Shape) -> dict[str, Calls]:
    channels = shape.shape[1]
    gamma, beta = (clock.array((channels,), "float32") for _ in range(2))
    names = [name for name in PASSES if clock.on_gpu or name != "dx alone"]
    calls: dict[str, Calls] = {name: [] for name in names}
    given = {"mean": gamma, "var": gamma.abs()}
    for x, dy, out in _arrays(clock, shape):
        _, stats = nbn.batch_norm_train(x, gamma, beta, out=out)
        calls["statistics"].append(lambda x=x: nbn.channel_stats(x))
        calls["inference"].append(
            lambda x=x, out=out: nbn.batch_norm(x, gamma, beta, out=out, **given)
        )
        calls["forward"].append(lambda x=x, o=out: nbn.batch_norm_train(x, gamma, beta, out=o))
        calls["backward"].append(
            lambda x=x, dy=dy, out=out, s=stats: nbn.batch_norm_backward(
                dy, x, gamma, stats=s, out=out
            )
        )
        if clock.on_gpu:
            calls["dx alone"].append(dx_alone(dy, x, gamma, gamma.abs(), stats.count, out))
    return calls


def dx_alone(dy: Any, x: Any, gamma: Any, var: Any, count: Any, out: Any) -> Callable[[], Any]:
    """Return a call of the last kernel of a backward; no value that it reads changes its time."""
    from numba_bn._adapters.cuda.looks import library_of
    from numba_bn._arrays import five_axes, order_of
    from numba_bn._kernels.cuda import backend
    from numba_bn._view import batch_view

    seen = [library_of(a).seen("dx_alone", "x", a) for a in (dy, x, out, gamma, var, count)]
    view = batch_view(x.shape, order_of(seen[1]), (1,))
    dy5, x5, dx5 = (five_axes(a, view) for a in seen[:3])
    g, v, n = seen[3:]
    return lambda: backend.input_gradient(dy5, x5, g, v, g, (n, n), n, 1e-5, dx5)


def _pytorchs(clock: Clock, shape: Shape) -> dict[str, dict[str, Calls]]:
    """Return PyTorch's ways: cuDNN's kernels, its own, and what torch.compile makes of it."""
    torch = clock.torch
    ways: dict[str, dict[str, Calls]] = {}
    for name, cudnn, compiled in (
        ("cuDNN", True, False), ("PyTorch's own", False, False), ("torch.compile", True, True),
    ):  # fmt: skip
        if compiled and clock.quick:
            continue
        try:
            norm = _compiled(torch) if compiled else torch.nn.functional.batch_norm
            with torch.backends.cudnn.flags(enabled=cudnn):
                calls = _pytorch(clock, shape, norm, cudnn)
                for ready in calls.values():
                    ready[0]()
        except Exception as error:  # a way that this PyTorch does not have
            print(f"{name}: {error!r}"[:300], flush=True)
        else:
            ways[name] = calls
    return ways


def _compiled(torch: Any) -> Any:
    """Return what torch.compile makes of batch norm, for one shape."""
    torch._dynamo.reset()  # it compiles one function a few times only, then no more
    torch._functorch.config.donated_buffer = False  # a backward may then run again
    return torch.compile(torch.nn.functional.batch_norm, dynamic=False)


def _pytorch(clock: Clock, shape: Shape, norm: Any, cudnn: bool) -> dict[str, Calls]:
    torch, channels = clock.torch, shape.shape[1]
    weight, bias, mean = (clock.array((channels,), "float32") for _ in range(3))
    var = mean.abs()
    parameters = [p.requires_grad_() for p in (weight.clone(), bias.clone())]
    calls: dict[str, Calls] = {"inference": [], "forward": [], "backward": []}

    def with_flags(call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.backends.cudnn.flags(enabled=cudnn):
                return call()

        return run

    for x, dy, _ in _arrays(clock, shape):
        leaf = x.detach().requires_grad_()
        y = norm(leaf, mean.clone(), var.clone(), *parameters, training=True)
        eager = x, mean, var, weight, bias
        calls["inference"].append(with_flags(lambda e=eager: norm(*e)))
        calls["forward"].append(with_flags(lambda e=eager: norm(*e, training=True)))
        calls["backward"].append(
            with_flags(
                lambda y=y, leaf=leaf, dy=dy: torch.autograd.grad(
                    y, (leaf, *parameters), dy, retain_graph=True
                )
            )
        )
    return calls
