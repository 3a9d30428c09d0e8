"""Calls on plain arrays: by the kept way they have the bits and errors of the ordinary one."""

import numpy as np
import pytest
from table import HALVES

import numba_bn as nbn
from numba_bn._kernels import _launch
from numba_bn._kernels.cpu import arrays
from numba_bn._kernels.cpu.plain import Launches, OwnLaunches
from numba_bn.functional import _plain

pytestmark = [
    pytest.mark.parametrize("backend", ["cpu"], indirect=True),
    pytest.mark.usefixtures("backend"),
]
BATCH = ("normalized", "trained", "gradients")
ROWS, SAMPLES = ("layer_norm", "rms_norm"), ("instance_norm", "group_norm")
OWN = ROWS + SAMPLES
CALLS = BATCH + OWN + tuple(f"{name}_backward" for name in OWN)
OF_BATCH = [((32, 64), 1), ((7,), 0), ((5, 1), -1), ((8, 16, 100), 1), ((2, 3, 600), 1)]
OF_BATCH += [((4, 9, 5), 2)]
OF_ROWS = [((32, 64), -1), ((7,), 0), ((5, 1), 1), ((8, 6, 300), 2), ((40, 1000), 1)]
# rows of a few values a channel, runs, columns
OF_SAMPLES = [((4, 6, 5), 1), ((8, 16, 100), 1), ((3, 50, 6), -1), ((40, 6), 1)]
CASES = [(call, *case) for call in BATCH for case in OF_BATCH]
CASES += [(name + way, *case) for name in ROWS for case in OF_ROWS for way in ("", "_backward")]
CASES += [
    (name + way, *case) for name in SAMPLES for case in OF_SAMPLES for way in ("", "_backward")
]
over_calls = pytest.mark.parametrize("call", CALLS)
over_dtypes = pytest.mark.parametrize("dtype", [*HALVES, np.float32, np.float64], ids=str)


class Work:
    """The arrays of a shape, and the public functions on them."""

    def __init__(self, shape=(6, 4), axis=1, dtype=np.float32):
        rng = np.random.default_rng([len(shape), *shape])
        self.x, self.dy = rng.normal(3, 2, (2, *shape)).astype(dtype)
        self.gamma, self.beta, self.mean = rng.normal(size=(3, shape[axis])).astype(np.float32)
        self.var = rng.uniform(1, 2, shape[axis]).astype(np.float32)
        self.axis, self.stats = axis, nbn.channel_stats(self.x, channel_axis=axis)

    def run(self, call, **changes):
        """Return all that a public function returns, as arrays."""
        if call not in BATCH:
            return self._own(call, **changes)
        options = {"channel_axis": self.axis, "gamma": self.gamma, "x": self.x}
        if call == "gradients":
            options |= {"dy": self.dy, "stats": self.stats, **changes}
            arrays = [options.pop(name) for name in ("dy", "x")]
            return list(nbn.batch_norm_backward(*arrays, **options)[:3])
        options |= {"beta": self.beta, **changes}
        x = options.pop("x")
        if call == "normalized":
            return [nbn.batch_norm(x, **{"mean": self.mean, "var": self.var, **options})]
        y, stats = nbn.batch_norm_train(x, **options)
        return [y, stats.count, stats.mean, stats.m2, stats._moments.low]

    def _own(self, call, **changes):
        """Return the same of a norm by x's own statistics."""
        options = {"channel_axis": self.axis, "gamma": self.gamma, "x": self.x, "dy": self.dy}
        if "rms" not in call and "backward" not in call:
            options["beta"] = self.beta
        if "group" in call:
            options["num_groups"] = 2
        options |= changes
        dy = options.pop("dy")
        if call.startswith(ROWS):
            options["axis"] = options.pop("channel_axis")
        if "backward" not in call:
            return [getattr(nbn, call)(options.pop("x"), **options)]
        gradients = getattr(nbn, call)(dy, options.pop("x"), **options)
        return [a for a in gradients if a is not None]


@pytest.fixture
def ordinarily(monkeypatch):
    """Run a call the ordinary way."""

    def run(call):
        with monkeypatch.context() as patch:
            patch.setattr(_plain, "_kind_of", lambda *_: None)
            return call()

    return run


@pytest.fixture
def taken(monkeypatch):
    """Tell how many calls were done by kept launches."""
    seen = []

    def spied(method):
        def run(*args):
            seen.append(method)
            return method(*args)

        return run

    for launches in (Launches, OwnLaunches):
        for name in {"normalize", "forward", "backward"} & vars(launches).keys():
            monkeypatch.setattr(launches, name, spied(getattr(launches, name)))
    return lambda: len(seen)


def assert_same(got, want):
    assert [(a.dtype, a.shape) for a in got] == [(a.dtype, a.shape) for a in want]
    assert [a.tobytes() for a in got] == [a.tobytes() for a in want]


@pytest.mark.parametrize(("call", "shape", "axis"), CASES, ids=str)
@over_dtypes
def test_bits_of_the_ordinary_way(call, shape, axis, dtype, ordinarily, taken):
    work = Work(shape, axis, dtype)
    want = ordinarily(lambda: work.run(call))
    assert not taken()
    for number in (1, 2):  # the second by what the first has found
        assert_same(work.run(call), want)
        assert taken() == number


@pytest.mark.parametrize(("shape", "axis"), OF_BATCH, ids=str)
@over_dtypes
def test_bits_of_statistics(shape, axis, dtype, ordinarily, monkeypatch):
    x, asked, moments = Work(shape, axis, dtype).x, [], Launches.moments

    def statistics():
        found = nbn.channel_stats(x, channel_axis=axis)._moments
        return [found.count, found.mean, found.low, found.m2]

    want = ordinarily(statistics)
    monkeypatch.setattr(Launches, "moments", lambda *args: (asked.append(1), moments(*args))[1])
    assert_same(statistics(), want)
    assert len(asked) == 1


@pytest.mark.parametrize("call", BATCH)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((300, 3, 7, 7), 1),
        ((500, 3, 7, 7), 1),
        ((900, 3, 7, 7), 1),
        ((900, 3, 8, 8), 1),
        ((3, 1, 400, 400), 1),
        ((900, 7, 7, 3), -1),
        ((3, 2, 300, 300), 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_large_channels(call, shape, axis, dtype, ordinarily, taken):
    """Some train in one go and go back in two, larger ones do both in two."""
    work = Work(shape, axis, dtype)
    want = ordinarily(lambda: work.run(call))
    assert_same(work.run(call), want)
    assert taken() == 1


@pytest.mark.parametrize("call", BATCH)
@pytest.mark.parametrize("value", [np.inf, np.nan, 1e30])
def test_values_that_are_not_numbers(call, value, ordinarily):
    """No warning either, where warnings are errors."""
    work = Work((900, 3, 7, 7))
    work.x[1, 1, 1, 1] = value
    work.stats = nbn.channel_stats(work.x)
    assert_same(work.run(call), ordinarily(lambda: work.run(call)))


@pytest.mark.parametrize(
    ("call", "shape", "axis"),
    [("layer_norm", (1, 300_000), 1), ("group_norm_backward", (1, 600, 512), 2)],
)
def test_what_takes_more_than_one_go(call, shape, axis, taken, monkeypatch):
    """It goes the ordinary way, and takes memory for its result there alone."""
    kind_of = _plain._kind_of

    def without_memory(*args):
        kind = kind_of(*args)
        kind.new = None
        return kind

    monkeypatch.setattr(_plain, "_kind_of", without_memory)
    Work(shape, axis, np.float16).run(call)
    assert not taken()


@over_calls
@pytest.mark.parametrize("gamma", [None, [1, 2, 3, 4], np.ones(4), np.ones(4, np.float16)], ids=str)
def test_any_gamma(call, gamma, ordinarily, taken):
    work = Work()
    want = ordinarily(lambda: work.run(call, gamma=gamma))
    assert_same(work.run(call, gamma=gamma), want)
    assert taken() == 1


@over_calls
@pytest.mark.parametrize("own", [True, False])
def test_out(call, own, ordinarily, taken):
    work = Work()
    want = ordinarily(lambda: work.run(call))
    out = work.x if own else np.empty_like(work.x)
    got = work.run(call, out=out)
    assert got[0] is out
    assert_same(got, want)
    assert taken() == 1


@over_calls
@pytest.mark.parametrize("own", [True, False])
def test_out_past_the_caches(call, own, ordinarily, taken, monkeypatch):
    """What is being read is not written so: it goes the ordinary way, which finds that out."""
    monkeypatch.setattr(arrays, "far_bytes", lambda once: 0)
    monkeypatch.setattr(arrays, "gone_bytes", lambda: 0)
    _plain._kind.cache_clear()
    work = Work((40, 64))
    want = ordinarily(lambda: work.run(call))
    assert_same(work.run(call, out=work.x if own else np.empty_like(work.x)), want)
    streams = "instance" not in call  # whose runs are of one value: no line is written whole
    assert taken() == (0 if own and streams else 1)


@pytest.mark.parametrize("call", [*BATCH, "layer_norm", "layer_norm_backward", "rms_norm"])
def test_out_in_the_memory_of_a_parameter(call):
    work = Work((7,), axis=0)
    want = work.run(call)
    assert_same(work.run(call, out=work.gamma), want)


def test_out_in_the_memory_of_statistics(ordinarily):
    work = Work((64, 4), axis=0, dtype=np.float64)
    want = ordinarily(lambda: work.run("gradients"))
    _, work.stats = nbn.batch_norm_train(work.x, channel_axis=0)
    # a channel's gradient goes where the counts of four others are
    out = work.stats.mean.base.reshape(64, 4)
    assert_same(work.run("gradients", out=out), want)


class Own(np.ndarray):
    """Not NumPy's array itself."""


def read_only(x):
    x.flags.writeable = False
    return x


OTHERS = {
    "read-only": lambda x: read_only(x.copy()),
    "Fortran's order": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "integers": lambda x: np.rint(np.abs(x)).astype(np.uint8),
    "a list": lambda x: x.tolist(),
}


@over_calls
@pytest.mark.parametrize("kind", OTHERS)
def test_other_arrays_go_the_ordinary_way(call, kind, ordinarily, taken):
    work = Work()
    work.run(call)
    work.x = OTHERS[kind](work.x)
    want = ordinarily(lambda: work.run(call))
    assert taken() == 1
    assert_same(work.run(call), want)
    assert taken() == 1


ROOM = np.ones((7, 4), np.float32)
WRONG = {
    "axis True": {"channel_axis": True},
    "axis 2": {"channel_axis": 2},
    "axis 0": {"channel_axis": 0},
    "eps": {"eps": -1.0},
    "length of gamma": {"gamma": np.ones(3)},
    "dtype of gamma": {"gamma": np.ones(4, bool)},
    "kind of gamma": {"gamma": np.ma.ones(4)},
    "kind of x": {"x": np.ones((6, 4), np.float32).view(Own)},
    "shape of out": {"out": np.empty((6, 3), np.float32)},
    "dtype of out": {"out": np.empty((6, 4))},
    "kind of out": {"out": np.empty((6, 4), np.float32).view(Own)},
    "read-only out": {"out": read_only(np.empty((6, 4), np.float32))},
    "overlapping out": {"x": ROOM[:6], "out": ROOM[1:]},
}
WRONG_OF_GRADIENTS = {
    "an empty channel": {"stats": nbn.ChannelStats([0, 6, 6, 6], np.zeros(4), np.ones(4))},
    "length of stats": {"stats": nbn.ChannelStats([6], [0], [1])},
    "kind of stats": {"stats": "none"},
    "no stats": {"stats": None},
    "shape of dy": {"dy": np.ones((6, 3), np.float32)},
    "dtype of dy": {"dy": np.ones((6, 4), bool)},
}
WRONG_OF_DY = ("shape of dy", "dtype of dy")
WRONG_OF_GROUPS = {f"{n} groups": {"num_groups": n} for n in (0, 3, None, True, [2], 2.0)}
NAMED = [(call, name, WRONG[name]) for call in CALLS for name in WRONG]
NAMED += [("gradients", name, changes) for name, changes in WRONG_OF_GRADIENTS.items()]
NAMED += [(f"{name}_backward", n, WRONG_OF_GRADIENTS[n]) for name in OWN for n in WRONG_OF_DY]
NAMED += [
    (f"group_norm{way}", name, changes)
    for name, changes in WRONG_OF_GROUPS.items()
    for way in ("", "_backward")
]


@pytest.mark.parametrize(
    ("call", "changes"), [pytest.param(call, c, id=f"{call}-{n}") for call, n, c in NAMED]
)
def test_errors_of_the_ordinary_way(call, changes, ordinarily):
    work = Work()
    work.run(call)  # so that the signature is known

    def error():
        with pytest.raises((TypeError, ValueError)) as caught:
            work.run(call, **changes)
        return type(caught.value), str(caught.value)

    assert error() == ordinarily(error)


@over_calls
def test_threads_are_asked_for_at_each_call(call, monkeypatch):
    work, launched = Work(), []
    want = work.run(call)
    monkeypatch.setattr(_launch, "_PARALLEL_BYTES", 0)
    _plain._kind.cache_clear()  # the backend's fixture does so again at the end
    monkeypatch.setattr(
        _launch.policy, "launch", lambda n, twin, args: (launched.append(n), twin(*args))
    )
    # those that end in `_backward` add up the parts of their sums in a launch of its own
    once = [2, 2] if call.endswith("_backward") else [2]
    for threads, expected in ((1, []), (2, once), (1, once)):
        monkeypatch.setattr(_launch.policy, "threads", lambda n=threads: n)
        assert_same(work.run(call), want)
        assert launched == expected
