"""Calls made again: as those that are made in full, and nothing that may change is kept."""

import numpy as np
import pytest
from calls import CALLS, NORMS
from fake_cupy import offset

import numba_bn as nbn
from numba_bn._adapters.cuda import replay

X = CALLS["batch_norm"].arguments()["x"]
VECTOR = np.linspace(0.5, 2.0, 6, dtype=np.float32)


def arrays(name, cupy, **more):
    """The arguments of a call from the table, all arrays new and on the device."""
    given = {**CALLS[name].arguments(), **more}
    if "stats" in given:
        given["stats"] = nbn.batch_norm_train(cupy.array(X))[1]
    return {n: cupy.array(v) if isinstance(v, np.ndarray) else v for n, v in given.items()}


def launched(bench, function, given):
    """What a call launches, each address as the argument it is in and how far."""
    before = len(bench.driver.launched)
    result = getattr(nbn, function)(**given)
    begins = {n: a.data.ptr for n, a in given.items() if isinstance(a, bench.cupy.ndarray)}
    ends = {n: begin + given[n].view.nbytes for n, begin in begins.items()}

    def place(argument):
        if argument < bench.memory.BASE or isinstance(argument, float):
            return argument
        return [(n, argument - b) for n, b in begins.items() if b <= argument < ends[n]]

    steps = bench.driver.launched[before:]
    return [(*s[:4], [place(a) for a in s.arguments]) for s in steps], result


def looks(result):
    """The kind, shape and dtype of each thing that a call returns."""
    items = result if isinstance(result, tuple) else (result,)
    return type(result), [
        repr(i) if i is None or not hasattr(i, "view") else (i.shape, i.strides, i.dtype)
        for i in items
    ]


@pytest.fixture
def in_full(monkeypatch):
    """Make a call as if there were no replay."""

    def make(*call):
        with monkeypatch.context() as patch:
            patch.setattr(replay, "kept", lambda look: None)
            patch.setattr(replay, "program", lambda *_: None)
            return launched(*call)

    return make


@pytest.fixture
def traced(monkeypatch):
    """The functions that were traced."""
    seen, trace = [], replay._traced
    monkeypatch.setattr(
        replay, "_traced", lambda *given: seen.append(given[0].__name__) or trace(*given)
    )
    return seen


@pytest.mark.parametrize("given", [False, True], ids=["new", "out"])
@pytest.mark.parametrize("name", [*NORMS, "channel_stats"])
def test_a_call_made_again_launches_and_returns_the_same(bench, in_full, traced, name, given):
    if name == "channel_stats" and given:
        pytest.skip("it has no output")
    call = CALLS[name]
    more = {"out": np.empty_like(call.arguments()["x"])} if given else {}
    wanted, result = in_full(bench, call.function, arrays(name, bench.cupy, **more))
    traced.clear()
    for _ in range(3):
        arguments = arrays(name, bench.cupy, **more)
        got, again = launched(bench, call.function, arguments)
        assert got == wanted
        assert looks(again) == looks(result)
        if given:
            assert (again[0] if isinstance(again, tuple) else again) is arguments["out"]
    assert traced.count(call.function) == 1


CHANGES = {
    "eps": {"eps": 0.25},
    "an integer eps": {"eps": 1},
    "NumPy's eps": {"eps": np.float64(0.25)},
    "a tuple of axes": {"channel_axis": (1,)},
    "no gamma": {"gamma": None},
    "gamma's dtype": {"gamma": VECTOR.astype(np.float64)},
    "gamma's strides": {"gamma": np.repeat(VECTOR, 2)[::2]},
    "x's dtype": {"x": X.astype(np.float16)},
    "x's shape": {"x": X[:2]},
    "x's order": {"x": np.asfortranarray(X)},
    "the channels": {"x": np.ones((4, 5, 6), np.float32), "channel_axis": -1},
    "activation": {"activation": "relu"},
    "residual": {"residual": X},
    "where": {"where": X > 0},
    "a smaller mask": {"where": X[:, :, :1] > 0},
    "statistics": {"mean": VECTOR, "var": VECTOR},
    "NumPy's own": {"beta": [0.0] * 6},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_call_depends_on_is_never_that_of_another(bench, in_full, change):
    base = {"x": X, "gamma": VECTOR, "beta": VECTOR}

    def given(**changes):
        made = {**base, **changes}
        return {n: bench.cupy.array(v) if isinstance(v, np.ndarray) else v for n, v in made.items()}

    launched(bench, "batch_norm", given())
    wanted, result = in_full(bench, "batch_norm", given(**change))
    for _ in range(2):
        got, again = launched(bench, "batch_norm", given(**change))
        assert got == wanted
        assert looks(again) == looks(result)


def test_addresses_and_streams_are_those_of_the_call(bench, in_full):
    kernels = set()
    for handle, nbytes in [(5, 0), (6, 4), (7, 16), (5, 4)]:
        bench.cupy.cuda.handle = handle
        given = {"x": offset(np.ones((4, 6, 8), np.float32), nbytes)}
        wanted, _ = in_full(bench, "instance_norm", given)
        got, _ = launched(bench, "instance_norm", given)
        assert got == wanted
        assert got[0][0] == handle
        kernels.add(got[0][1])
    assert len(kernels) == 2  # whole vectors are for addresses that allow them


@pytest.mark.parametrize("order", ["apart first", "in place first"])
def test_an_output_in_place_is_not_one_apart(bench, in_full, order):
    make = lambda: bench.cupy.array(np.ones((70, 128), np.float32))  # noqa: E731
    cases = ["out", "dy", "x"] if order == "apart first" else ["dy", "x", "out"]
    for _ in range(2):
        for over in cases:
            given = {"dy": make(), "x": make()}
            given["out"] = given.get(over) or make()
            wanted, _ = in_full(bench, "layer_norm_backward", given)
            got, _ = launched(bench, "layer_norm_backward", given)
            assert got == wanted
            assert len(got) == (2 if over == "out" else 3)


def refused(call):
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    return type(caught.value), str(caught.value), caught.value.__context__


def test_errors_are_those_of_a_first_call(bench):
    make = bench.cupy.array
    whole, gamma = make(np.ones((5, 4), np.float32)), make(np.ones(4, np.float32))
    x, frozen = whole[:4], make(np.ones((4, 4), np.float32))
    stats = nbn.batch_norm_train(x)[1]
    elsewhere = nbn.batch_norm_train(bench.cupy.ndarray(x.view, 1))[1]
    spoilt = [
        lambda: nbn.batch_norm(x, make(np.ones(5, np.float32))),
        lambda: nbn.batch_norm(x, gamma, eps=True),
        lambda: nbn.batch_norm(x, gamma, eps=float("nan")),
        lambda: nbn.batch_norm(x, gamma, activation="tanh"),
        lambda: nbn.batch_norm(x, gamma, out=whole[1:]),
        lambda: nbn.batch_norm(x, gamma, out=make(np.ones((4, 4)))),
        lambda: nbn.batch_norm(x, bench.cupy.ndarray(gamma.view, 1)),
        lambda: nbn.batch_norm_backward(x, x, stats=elsewhere),
    ]
    first = [refused(call) for call in spoilt]
    assert "got x on cuda:0 and stats on cuda:1" in first[-1][1]
    for _ in range(2):
        nbn.batch_norm(x, gamma, eps=1)
        nbn.batch_norm(x, gamma, out=frozen)
        nbn.batch_norm(x, gamma, out=x)
        nbn.batch_norm_backward(x, x, stats=stats)
    before = len(bench.driver.launched)
    assert [refused(call) for call in spoilt] == first
    assert len(bench.driver.launched) == before


def test_values_of_the_host_are_sent_anew(bench, monkeypatch):
    x, sent, array = bench.cupy.array(X), [], bench.cupy.array
    monkeypatch.setattr(bench.cupy, "array", lambda a: sent.append(a[0]) or array(a))
    for value in (1.0, 2.0, 3.0):
        nbn.batch_norm(x, np.full(6, value))
    assert sent == [1.0, 2.0, 3.0]


def test_a_call_that_looks_at_values_looks_each_time(bench, monkeypatch):
    x, looked, asnumpy = bench.cupy.array(X), [], bench.cupy.asnumpy
    monkeypatch.setattr(bench.cupy, "asnumpy", lambda a: looked.append(a) or asnumpy(a))
    for _ in range(3):
        nbn.channel_stats(x, nan_policy="raise")
    assert len(looked) >= 3
    assert set(replay._programs.values()) == {None}


def test_a_layer_is_replayed_too(bench, traced):
    layer = nbn.BatchNorm(6)
    for _ in range(3):
        layer.backward(layer(bench.cupy.array(X)))
    assert traced == ["batch_norm_train", "batch_norm_backward"]


OPTIONS = {
    "eps of float64": ("batch_norm", {"eps": np.float64(1e-5)}),
    "eps of float32": ("batch_norm", {"eps": np.float32(1e-5)}),
    "an axis of int64": ("batch_norm", {"channel_axis": np.int64(1)}),
    "a channel axis": ("batch_norm", {"channel_axis": (1,)}),
    "axes": ("layer_norm", {"axis": (-2, -1)}),
    "a list of axes": ("layer_norm", {"axis": [-2, -1]}),
    "axes of int64": ("layer_norm", {"axis": (np.int64(1), np.int64(2))}),
}


@pytest.mark.parametrize(("function", "options"), OPTIONS.values(), ids=OPTIONS)
def test_ordinary_options_are_replayed(bench, in_full, traced, function, options):
    wanted, _ = in_full(bench, function, {"x": bench.cupy.array(X), **options})
    for _ in range(3):
        got, _ = launched(bench, function, {"x": bench.cupy.array(X), **options})
        assert got == wanted
    assert traced == [function]


def test_axes_of_another_class_are_refused_as_at_first(bench):
    x = bench.cupy.array(X)
    nbn.batch_norm(x, channel_axis=(1,))
    for axes in ((True,), [True]):
        with pytest.raises(TypeError, match="channel_axis must be an integer, got True"):
            nbn.batch_norm(x, channel_axis=axes)


def test_a_list_that_is_changed_is_another(bench, in_full):
    x, axes = bench.cupy.array(np.ones((4, 5, 6), np.float32)), [2]
    nbn.layer_norm(x, axis=axes)
    axes.insert(0, 1)
    wanted, _ = in_full(bench, "layer_norm", {"x": x, "axis": (1, 2)})
    assert launched(bench, "layer_norm", {"x": x, "axis": axes})[0] == wanted


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(bench, traced, monkeypatch):
    monkeypatch.setattr(replay, "_MOST", 3)
    make = lambda n: nbn.batch_norm(bench.cupy.array(X[:, :, :n]))  # noqa: E731
    for n in range(1, 6):
        make(n)
        assert len(replay._programs) == min(n, 3)
    traced.clear()
    for n in (3, 4, 5):
        make(n)
    assert traced == []
    make(1)
    assert len(traced) == 1
