"""Writing past the caches, from any place in a line of memory, changes no bit of a result."""

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from table import CASES, Case, backward, data, forward, name, quickly, some_mask

import numba_bn as nbn
from numba_bn._kernels.cpu import arrays, caches, plain, plan
from numba_bn.functional import _plain

pytestmark = pytest.mark.parametrize("backend", ["cpu"], indirect=True)
over_places = pytest.mark.parametrize("place", [0, 1, 12, 15])
LINE = 64


def room(like, place):
    """An empty array of the same kind, that begins so many values into a line of memory."""
    size = like.dtype.itemsize
    some = np.zeros(like.nbytes + 4 * LINE, np.uint8)
    start = -some.ctypes.data % LINE + place * size
    return some[start : start + like.nbytes].view(like.dtype).reshape(like.shape)


@pytest.fixture
def streams(monkeypatch):
    """Switch for arrays of any size."""

    def switch():
        monkeypatch.setattr(arrays, "far_bytes", lambda once: 0)
        monkeypatch.setattr(arrays, "gone_bytes", lambda: 0)
        monkeypatch.setattr(arrays, "on_zen", lambda: True)
        _plain._kind.cache_clear()  # the backend's fixture does so again at the end

    return switch


@over_places
@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("backend")
def test_every_norm(case, dtype, place, streams):
    d = data(case, dtype)

    def calls(out):
        y = forward(case, d, out=out).copy()
        return [y, *(g for g in backward(case, d, out=out)[:3] if g is not None)]

    want = [a.copy() for a in calls(room(d.x, 0))]
    streams()
    for got, known in zip(calls(room(d.x, place)), want, strict=True):
        assert np.array_equal(got, known)


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.usefixtures("backend")
def test_in_place(case, streams):
    """What is being read is not written so, and comes out the same."""
    d = data(case, np.float32)
    y, dx = forward(case, d), backward(case, d).dx
    streams()
    assert np.array_equal(forward(case, d, out=d.x.copy()), y)
    d = data(case, np.float32)
    assert np.array_equal(forward(case, d, out=d.x), y)
    for place in ("x", "dy"):
        d = data(case, np.float32)
        assert np.array_equal(backward(case, d, out=getattr(d, place)).dx, dx)


@over_places
@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize(
    "shape", [(3000, 7), (9, 9, 64), (33, 130, 3, 3), (70, 8208), (2, 3, 5001)], ids=str
)
@pytest.mark.usefixtures("backend")
def test_options(shape, norm, place, streams):
    """Of columns that registers hold, of others, of tiles narrower than a row, and of runs."""
    case = Case(norm, shape, (-1,) if shape[-1] == 64 else (1,))
    d = data(case, np.float32)
    where = some_mask(case) if norm == "batch" else None

    def calls(out):
        options = {"residual": d.dy, "activation": "relu", "where": where}
        y = forward(case, d, out=out, **options).copy()
        masked = {} if where is None else {"where": where}
        return [y, *(g for g in backward(case, d, out=out, **masked)[:3] if g is not None)]

    want = [a.copy() for a in calls(room(d.x, 0))]
    streams()
    for got, known in zip(calls(room(d.x, place)), want, strict=True):
        assert np.array_equal(got, known)


@over_places
@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("dtype", quickly([np.float32], ml_dtypes.bfloat16))
@pytest.mark.parametrize(
    "shape", [(9, 16), (9, 31), (5, 32), (40, 100), (3, 2, 33), (20, 272), (20, 300)]
)
@pytest.mark.usefixtures("backend")
def test_rows(shape, dtype, extreme, place, streams):
    """Of the extreme ones some have no factors in float32: those are written otherwise."""
    x, dy = np.random.default_rng(0).normal(size=(2, *shape)).astype(dtype)
    gamma = np.linspace(0.5, 2.0, shape[-1], dtype=np.float32)
    if extreme:
        x[::3] *= dtype(1e-36)

    def calls(out):
        # of eps 0 no row is the less extreme
        y = nbn.layer_norm(x, gamma, gamma, eps=0.0, out=out).copy()
        return y, *nbn.layer_norm_backward(dy, x, gamma, eps=0.0, out=out)[:3]

    want = [a.copy() for a in calls(np.empty_like(x))]
    streams()
    for got, known in zip(calls(room(x, place)), want, strict=True):
        assert np.array_equal(got, known)
        assert np.isfinite(got).all()


@over_places
@pytest.mark.parametrize("groups", [2, 6])
@pytest.mark.parametrize("plane", [(4, 4), (5, 7), (1, 100)])
@pytest.mark.usefixtures("backend")
def test_runs_without_factors_in_float32(plane, groups, place, streams):
    """They lie among others that have some, and share lines with them."""
    x, dy = np.random.default_rng(0).normal(size=(2, 5, 6, *plane)).astype(np.float32)
    gamma = np.linspace(0.5, 2.0, 6, dtype=np.float32)
    x[::2, :3] *= 1e-36

    def calls(out):
        # of eps 0 no group is the less extreme
        y = nbn.group_norm(x, groups, gamma, gamma, eps=0.0, out=out).copy()
        return y, *nbn.group_norm_backward(dy, x, groups, gamma, eps=0.0, out=out)[:3]

    want = [a.copy() for a in calls(np.empty_like(x))]
    streams()
    for got, known in zip(calls(room(x, place)), want, strict=True):
        assert np.array_equal(got, known)
        assert np.isfinite(got).all()


@over_places
@pytest.mark.parametrize("plane", [(8, 9), (13, 13)])
@pytest.mark.usefixtures("backend")
def test_channels_without_factors_in_float32(plane, place, streams):
    """The same of channels, whose runs lie in several samples."""
    x = np.random.default_rng(0).normal(size=(5, 6, *plane)).astype(np.float32)
    gamma = np.linspace(0.5, 2.0, 6, dtype=np.float32)
    x[:, ::2] *= 1e-36

    def calls(out):
        y, stats = nbn.batch_norm_train(x, gamma, gamma, eps=0.0, out=out)
        y, var = y.copy(), stats.m2 / stats.count
        return y, nbn.batch_norm(x, gamma, gamma, mean=stats.mean, var=var, eps=0.0, out=out).copy()

    want = calls(np.empty_like(x))
    streams()
    for got, known in zip(calls(room(x, place)), want, strict=True):
        assert np.array_equal(got, known)
        assert np.isfinite(got).all()


@pytest.mark.parametrize(("cpu", "halves"), [("znver5", True), ("icelake-server", False)])
@pytest.mark.usefixtures("backend")
def test_half_lines_are_written_past_the_caches_of_some_cpus(cpu, halves, monkeypatch):
    known = SimpleNamespace(magic_tuple=lambda: ("", cpu, ""))
    target = SimpleNamespace(target_context=SimpleNamespace(codegen=lambda: known))
    monkeypatch.setattr(caches, "cpu_target", target)
    monkeypatch.setattr(arrays, "on_zen", caches.on_zen.__wrapped__)
    monkeypatch.setattr(arrays, "far_bytes", lambda once: 0)
    planes = plan.plan_of((1, 2, 8, 1, 4096))
    for dtype, far in ((np.float16, halves), (np.float32, True), (np.float64, True)):
        x, y = np.zeros((2, 2, 8, 4096), dtype)
        assert arrays.plan_streams(planes, y, x) == far
        assert ("trains" in plain.Launches(planes, x.nbytes, x.dtype).past) == far
