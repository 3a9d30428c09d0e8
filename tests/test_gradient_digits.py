"""Gradients of float64 keep their digits at any mean, whichever way they are taken."""

import exact
import numpy as np
import oracle
import pytest
from oracle import assert_near
from ranks import together
from table import EPS, Case, Data, backward, name

import numba_bn as nbn
from numba_bn._kernels.cpu import gradients, plain

CASES = [
    *exact.CASES,
    Case("instance", (2, 2, 33_000)),
    Case("instance", (2, 16, 3, 80), (2,)),
    Case("group", (2, 4, 17_000), groups=2),
]
BATCH = [case for case in CASES if case.norm == "batch"]
OWN = [case for case in CASES if case.norm in ("instance", "group")]
over_means = pytest.mark.parametrize("mean", [1e4, -1e8, 1e12])


def around(case, mean):
    """Draw values around a mean that float64 does not hold."""
    rng = np.random.default_rng(9)
    x, dy = rng.normal(mean, 1, case.shape), rng.normal(size=case.shape)
    gamma = rng.uniform(0.5, 2, case.parameter_shape)
    return Data(x, dy, gamma, gamma, None, None)


def compare(got, want):
    for have, expected in zip(got[:3], want, strict=True):
        assert_near(have, expected)


def check(case, d, where=None):
    options = {} if where is None else {"where": where}
    compare(backward(case, d, **options), oracle.backward(case, d, where))


@pytest.mark.parametrize("case", CASES, ids=name)
@over_means
@pytest.mark.usefixtures("backend")
def test_digits(case, mean):
    check(case, around(case, mean))


@pytest.mark.parametrize("case", CASES, ids=name)
@pytest.mark.usefixtures("backend")
def test_digits_of_arrays_that_are_not_plain(case):
    d = around(case, 1e8)
    check(case, d._replace(dy=np.asfortranarray(d.dy)))


@pytest.mark.parametrize("case", BATCH, ids=name)
@pytest.mark.usefixtures("backend")
def test_digits_of_what_a_mask_leaves(case):
    where = np.random.default_rng(1).random(case.shape) < 0.7
    where[0] = True
    check(case, around(case, 1e8), where)


@pytest.mark.parametrize("case", [*BATCH, *OWN], ids=name)
@pytest.mark.parametrize("plainly", [True, False])
@pytest.mark.parametrize("backend", ["cpu"], indirect=True)
@pytest.mark.usefixtures("backend")
def test_digits_in_sweeps(case, plainly, monkeypatch):
    """Sums first, dx after, as large arrays are done."""
    for module in (gradients, plain):
        for small in ("one_go", "samples_apart"):
            monkeypatch.setattr(module, small, lambda *_: False)
    d = around(case, 1e8)
    check(case, d if plainly else d._replace(dy=np.asfortranarray(d.dy)))


@pytest.mark.parametrize("case", BATCH, ids=name)
@pytest.mark.usefixtures("backend")
def test_digits_of_several_ranks(case):
    d, half = around(case, 1e8), case.shape[0] // 2

    def step(comm):
        here = slice(half) if comm.Get_rank() == 0 else slice(half, None)
        x, options = d.x[here], {"comm": comm, **case.options}
        _, stats = nbn.batch_norm_train(x, **options)
        return nbn.batch_norm_backward(d.dy[here], x, d.gamma, stats=stats, eps=EPS, **options)

    one, other = together(step, size=2)
    dx = np.concatenate([one.dx, other.dx])
    compare((dx, one.dgamma, one.dbeta), oracle.backward(case, d))


@pytest.mark.parametrize("case", BATCH, ids=name)
@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.usefixtures("backend")
def test_digits_of_a_dask_array(case, lazy):
    da = pytest.importorskip("dask.array")
    d = around(case, 1e8)
    x, dy = (da.from_array(v, chunks=(2, *case.shape[1:])) for v in (d.x[:4], d.dy[:4]))
    _, stats = nbn.batch_norm_train(x, **case.options)
    stats = stats if lazy else stats.compute()
    got = nbn.batch_norm_backward(dy, x, d.gamma, stats=stats, eps=EPS, **case.options)
    some = case._replace(shape=x.shape), d._replace(x=d.x[:4], dy=d.dy[:4])
    compare([np.asarray(v) for v in got[:3]], oracle.backward(*some))
