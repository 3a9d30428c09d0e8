"""How far from the core arrays are says in which order columns are summed, and changes no bit."""

import ml_dtypes
import numpy as np
import pytest

import numba_bn as nbn
from numba_bn._kernels.cpu import arrays, caches, gradients, norms
from numba_bn._kernels.cpu.plan import plan_of
from numba_bn.functional import _plain

BATCH, WIDE, SAMPLES = (1, 9000, 40, 1, 1), (1, 900, 1600, 1, 1), (40, 90, 64, 1, 1)
SIZE = 4 * 9000 * 40
pytestmark = pytest.mark.parametrize("backend", ["cpu"], indirect=True)


@pytest.mark.parametrize(
    ("shape", "last", "much", "level"),
    [
        (BATCH, SIZE + 1, SIZE + 1, 0),
        (BATCH, SIZE, SIZE + 1, 1),
        (BATCH, SIZE, SIZE, 2),
        (WIDE, 0, 0, 1),
        (SAMPLES, 0, 0, 2),
    ],
)
@pytest.mark.usefixtures("backend")
def test_levels(shape, last, much, level, monkeypatch):
    monkeypatch.setattr(arrays, "far_bytes", lambda once: last)
    monkeypatch.setattr(arrays, "gone_bytes", lambda: much)
    monkeypatch.setattr(arrays, "on_zen", lambda: True)
    plan = plan_of(shape)
    assert plan.kind == "columns"
    assert arrays.far(plan, 4, plan.stride) == level
    assert arrays.far(plan, 2, plan.stride, 2) == level
    assert arrays.far(plan, 4, plan.stride - 16) == min(level, 1)
    monkeypatch.setattr(arrays, "on_zen", lambda: False)
    assert arrays.far(plan, 4, plan.stride) == min(level, 1)


@pytest.mark.parametrize(("zen", "once"), [(True, 40 << 20), (False, 28 << 20)])
@pytest.mark.usefixtures("backend")
def test_how_much_the_caches_are_trusted_with(zen, once, monkeypatch):
    monkeypatch.setattr(caches, "_cache_bytes", {2: 1 << 20, 3: 32 << 20}.get)
    monkeypatch.setattr(caches, "on_zen", lambda: zen)
    assert caches.far_bytes(False) == 24 << 20
    assert caches.gone_bytes() == 28 << 20
    assert caches.far_bytes(True) == once


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("shape", [(900, 37), (70, 6, 5, 33), (4000, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "bfloat16", "float32", "float64"])
@pytest.mark.usefixtures("backend")
def test_the_bits(shape, dtype, level, monkeypatch):
    rng = np.random.default_rng(5)
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    x = rng.integers(0, 200, shape).astype(dtype)
    floats = x if dtype.kind not in "iu" else x.astype(np.float32)
    dy = rng.standard_normal(shape).astype(floats.dtype)

    def everything():
        _plain._kind.cache_clear()
        stats = nbn.channel_stats(x, channel_axis=-1)
        given = nbn.batch_norm_backward(dy, x, stats=stats, channel_axis=-1)
        own = nbn.instance_norm(floats, channel_axis=-1) if len(shape) > 2 else stats.mean
        return [stats.mean, stats.m2, given.dx, given.dgamma, given.dbeta, own]

    monkeypatch.setattr(norms, "far", lambda *given: 0)
    monkeypatch.setattr(gradients, "far", lambda *given: 0)
    want = everything()
    monkeypatch.setattr(norms, "far", lambda *given: level)
    monkeypatch.setattr(gradients, "far", lambda *given: level)
    for a, b in zip(everything(), want, strict=True):
        assert np.array_equal(a, b)
