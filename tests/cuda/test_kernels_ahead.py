"""Kernels compiled ahead: those that ordinary calls then find."""

import numpy as np
import pytest

import numba_bn as nbn
from numba_bn._kernels.cuda import ahead, cubins
from numba_bn._kernels.cuda.cubins import Cubin


@pytest.fixture
def asked(monkeypatch):
    """What is asked for, where nothing is compiled."""
    seen = []

    def cubin(kernel, variant, capability):
        known = (kernel, variant, capability) in seen
        seen.append((kernel, variant, capability))
        return Cubin(b"", "", not known)

    monkeypatch.setattr(cubins, "cubin", cubin)
    return seen


def test_an_architecture_needs_no_device(asked):
    first = nbn.warmup("float32", device="sm_90")
    again = nbn.warmup(("float32", "float16"), device="sm_90")
    assert first.compiled > 10
    assert first.loaded == 0
    assert again.loaded >= first.compiled
    assert {capability for _, _, capability in asked} == {(9, 0)}
    assert nbn.warmup("float32", device="sm_120").compiled
    assert asked[-1][2] == (12, 0)


def test_every_kernel_is_asked_for_once(asked):
    nbn.warmup("float32", device="sm_80")
    assert len(set(asked)) == len(asked)


def test_ordinary_calls_find_theirs(asked, bench):
    nbn.warmup("float32", device="cuda")
    known = {kernel.label(variant) for kernel, variant, _ in asked}
    make = bench.cupy.array
    x = make(np.ones((8, 16, 32, 32), np.float32))
    gamma = make(np.ones(16, np.float32))
    y, stats = nbn.batch_norm_train(x, gamma, gamma)
    nbn.batch_norm_backward(y, x, gamma, stats=stats)
    layer = nbn.BatchNorm2d(16)
    layer(x)
    layer.eval()(x)
    assert {launched.label for launched in bench.driver.launched} <= known


@pytest.mark.parametrize("device", ["gpu", "sm_", "sm_9", "90", "cuda:0"])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(ValueError, match="warmup: device must be 'cpu', 'cuda', or an archit"):
        nbn.warmup(device=device)


def test_every_dtype_has_plans():
    for x, y in (("float64", "float64"), ("bfloat16", "bfloat16"), ("uint8", "float32")):
        assert len(ahead.variants(x, y, ahead.traits_of("sm_90").device)) > 10
