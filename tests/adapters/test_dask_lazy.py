"""Dask arrays: nothing is computed before it is asked for, and no error comes later than it can."""

import pickle

import calls
import numpy as np
import pytest
from calls import CALLS

import numba_bn as nbn

da = pytest.importorskip("dask.array")
import dask  # noqa: E402
from dask.base import tokenize  # noqa: E402

LAZY = [name for name in CALLS if name != "fold_batch_norm"]
OF_X = ("x", "dy", "y", "residual")


@pytest.fixture(autouse=True)
def _synchronously():
    """Let the tests that ask for no scheduler have the simplest."""
    with dask.config.set(scheduler="synchronous"):
        yield


def arguments(call, make):
    """The arguments of a call, the arrays of x's shape as Dask arrays."""
    given = CALLS[call].arguments()
    return {name: make(value) if name in OF_X else value for name, value in given.items()}


def blocks_that(function, array):
    """A Dask array whose blocks go through a function first."""
    meta = array[(slice(0),) * array.ndim]
    return da.from_array(array, chunks=2).map_blocks(function, dtype=array.dtype, meta=meta)


def collections(result):
    """All that is lazy in the result of a call."""
    if dask.is_dask_collection(result):
        return [result]
    return [each for each in result if each is not None]


def fail(block):
    raise AssertionError("a block was computed")


@pytest.mark.parametrize("call", LAZY)
def test_nothing_is_computed_before_it_is_asked_for(call):
    given = arguments(call, lambda array: blocks_that(fail, array))
    for each in collections(getattr(nbn, CALLS[call].function)(**given)):
        assert dask.is_dask_collection(each)
        with pytest.raises(AssertionError, match="a block was computed"):
            each.compute()


@pytest.mark.parametrize("call", LAZY)
def test_what_belongs_together_is_computed_once(call):
    seen = []
    given = arguments(call, lambda array: blocks_that(lambda b: seen.append(b) or b, array))
    dask.compute(*collections(getattr(nbn, CALLS[call].function)(**given)))
    assert len(seen) == 2 * 3 * 3  # x, dy, y and residual are the same array here


@pytest.mark.parametrize("call", LAZY)
def test_a_graph_is_named_by_what_it_computes(call):
    def names():
        given = arguments(call, lambda array: da.from_array(array, chunks=2))
        return [tokenize(c) for c in collections(getattr(nbn, CALLS[call].function)(**given))]

    assert names() == names()


def test_lazy_statistics_are_a_collection():
    x = da.from_array(calls.x(), chunks=2)
    stats, want = nbn.channel_stats(x), nbn.channel_stats(x).compute()
    assert type(want) is nbn.ChannelStats
    assert stats.persist().compute() == want
    assert pickle.loads(pickle.dumps(stats)).compute() == want
    assert dask.delayed(list)([stats, stats]).compute() == [want, want]
    assert dask.compute({"stats": stats})[0]["stats"] == want
    assert repr(stats) == "DaskChannelStats(shape=(6,), chunks=((2, 2, 2),))"
    for name in ("count", "mean", "m2"):
        np.testing.assert_array_equal(getattr(stats, name), getattr(want, name))
    for name in ("var", "std"):
        lazy = getattr(stats, name)(1)
        assert lazy.chunks == ((2, 2, 2),)
        np.testing.assert_array_equal(lazy, getattr(want, name)(1))
    with pytest.raises(TypeError, match=r"ChannelStats.var: correction must be a real number"):
        stats.var("1")


SPOILT = [
    ("x", lambda x: x.astype(bool)),
    ("x", lambda x: x.astype(np.complex64)),
    ("dy", lambda dy: dy[1:]),
    ("y", lambda y: y[..., 1:]),
    ("residual", lambda residual: residual[:, 1:]),
    ("gamma", lambda gamma: gamma[1:]),
    ("beta", lambda beta: beta.astype(complex)),
    ("mean", lambda mean: mean[None]),
    ("var", lambda var: None),
    ("num_groups", lambda _: 5),
]


@pytest.mark.parametrize(
    ("call", "name", "spoil"),
    [(c, n, f) for n, f in SPOILT for c in LAZY if n in CALLS[c].arguments()],
)
@pytest.mark.parametrize("lazy_parameters", [False, True])
def test_what_is_wrong_is_said_as_of_numpy_arrays(call, name, spoil, lazy_parameters):
    def lazy(value):
        return da.from_array(value, chunks=2)

    function, given = getattr(nbn, CALLS[call].function), CALLS[call].arguments()
    given[name] = spoil(given[name])
    with pytest.raises((TypeError, ValueError)) as expected:
        function(**given)
    for n, value in given.items():
        if isinstance(value, np.ndarray) and (n in OF_X or lazy_parameters):
            given[n] = lazy(value)
    with pytest.raises(expected.type) as caught:
        function(**given)
    assert str(caught.value) == str(expected.value)


WRONG = [
    {"channel_axis": 3},
    {"channel_axis": (1, 1)},
    {"channel_axis": 1.0},
    {"axis": 0},
    {"eps": -1.0},
    {"eps": "no"},
    {"activation": "gelu"},
    {"nan_policy": "no"},
    {"where": np.ones((2, 3), bool)},
    {"where": np.ones(5)},
]


@pytest.mark.parametrize("call", LAZY)
@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_wrong_options_are_refused_as_of_numpy_arrays(call, wrong):
    function = getattr(nbn, CALLS[call].function)
    if not wrong.keys() <= set(function.__wrapped__.__code__.co_varnames):
        return
    with pytest.raises((TypeError, ValueError, np.exceptions.AxisError)) as expected:
        function(**{**CALLS[call].arguments(), **wrong})
    with pytest.raises(expected.type) as caught:
        function(**{**arguments(call, da.from_array), **wrong})
    assert str(caught.value) == str(expected.value)


def refused(error, text, call, *args, **options):
    with pytest.raises(error) as caught:
        call(*args, **options)
    assert str(caught.value) == text


def test_what_only_dask_can_do_wrong():
    x = da.from_array(calls.x(), chunks=2)
    refused(
        ValueError,
        "layer_norm: x must have chunks of known sizes, got shape (nan, 6, 5); "
        "call x.compute_chunk_sizes() first",
        nbn.layer_norm,
        x[x[:, 0, 0] > 0],
    )
    refused(
        TypeError,
        "layer_norm: out must be None for Dask arrays, whose results are computed later, "
        "into memory of their own",
        nbn.layer_norm,
        x,
        out=calls.x(),
    )
    refused(
        TypeError,
        "layer_norm: x must be a Dask array as other arguments are, got ndarray",
        nbn.layer_norm,
        x=calls.x(),
        gamma=x[0, 0],
    )
    refused(TypeError, "layer_norm: missing a required argument: 'x'", nbn.layer_norm, gamma=x)
    refused(
        TypeError,
        "layer_norm: x must be a NumPy array, got MaskedArray; "
        "pass x.filled(...); where=~x.mask leaves values of x out",
        nbn.layer_norm,
        da.ma.masked_array(x),
    )


def test_channels_without_a_value_are_seen_when_computed():
    x, nothing = da.from_array(calls.x(), chunks=2), da.zeros((6, 5), dtype=bool)
    y, stats = nbn.batch_norm_train(x, where=nothing)
    for lazy in (y, stats, nbn.batch_norm(x, where=nothing)):
        with pytest.raises(ValueError, match=r"where leaves no values in a channel of x of shape"):
            lazy.compute()
    stats = nbn.channel_stats(x, where=nothing)
    with pytest.raises(ValueError, match=r"stats must have counted values in every channel"):
        nbn.batch_norm_backward(x, x, stats=stats).dx.compute()


def test_layers_and_folding_say_what_to_do():
    x = da.ones((2, 4), chunks=1)
    with pytest.raises(TypeError, match=r"^BatchNorm: x must be a NumPy array, got Array; read it"):
        nbn.BatchNorm(4)(x)
    with pytest.raises(TypeError, match=r"^fold_batch_norm: weight must be a NumPy array, got"):
        nbn.fold_batch_norm(x, None, None, None, [1.0], [1.0])


@pytest.mark.parametrize("reproducible", [False, True])
def test_statistics_merge_lazily(reproducible):
    halves = [da.from_array(half, chunks=2) for half in (calls.x()[:2], calls.x()[2:])]
    first, second = (nbn.channel_stats(h, reproducible=reproducible) for h in halves)
    want = first.compute() + second.compute()
    assert (first + second).compute() == first.merge(second).compute() == want
    assert (first + second).mean.chunks == first.mean.chunks


def test_statistics_that_do_not_merge():
    x = da.from_array(calls.x(), chunks=2)
    lazy = nbn.channel_stats(x)
    with pytest.raises(ValueError, match=r"^DaskChannelStats.merge: other .*compute\(\) both"):
        lazy + nbn.channel_stats(x.rechunk(3))
    known = lazy.compute()
    for first, second in ((lazy, known), (known, lazy)):
        with pytest.raises(
            TypeError, match=r"^DaskChannelStats.merge: other .* compute\(\) the la"
        ):
            first + second
    with pytest.raises(TypeError, match="unsupported operand"):
        lazy + 1


def test_what_takes_computed_statistics_says_so():
    x = da.from_array(calls.x(), chunks=2)
    lazy, known = nbn.channel_stats(x), nbn.channel_stats(calls.x())
    match = r"must be a ChannelStats, got DaskChannelStats; compute\(\) them first$"
    for call in (
        lambda: known.update(x),
        lambda: nbn.ChannelStats.from_chunks([calls.x(), x]),
        lambda: nbn.ChannelStats.from_chunks([x]),
        lambda: nbn.RunningStats(6).update(lazy),
        lambda: nbn.normalize_chunks(calls.x(), calls.x(), lazy),
        lambda: nbn.batch_norm_backward(calls.x(), calls.x(), stats=lazy),
    ):
        with pytest.raises(TypeError, match=match):
            call()


def test_normalize_chunks_takes_what_is_read_and_written_in_blocks():
    x = calls.x()
    stats = nbn.channel_stats(x)
    text = "must be an array in memory or in a file, got Array of dask; batch_norm takes those"
    with pytest.raises(TypeError, match=f"^normalize_chunks: source {text}"):
        nbn.normalize_chunks(da.from_array(x), np.empty_like(x), stats)
    with pytest.raises(TypeError, match=f"^normalize_chunks: target {text}"):
        nbn.normalize_chunks(x, da.from_array(x), stats)
