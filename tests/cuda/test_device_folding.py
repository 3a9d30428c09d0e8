"""Folding on a device: run as PTX against the CPU's, and what it takes and gives."""

import numpy as np
import pytest
from fake_numba import Interface

import numba_bn as nbn

RNG = np.random.default_rng(6)
WEIGHT = RNG.normal(size=(6, 5, 3, 3)).astype(np.float32)
VECTORS = {
    name: RNG.uniform(0.5, 2.0, 6).astype(np.float32)
    for name in ("bias", "gamma", "beta", "mean", "var")
}


def given(make, weight=WEIGHT, **changes):
    arguments = {"weight": weight, **VECTORS, **changes}
    return {n: make(v) if isinstance(v, np.ndarray) else v for n, v in arguments.items()}


CASES = {
    "all": {},
    "no bias": {"bias": None},
    "means alone": {"bias": None, "gamma": None, "beta": None},
    "half": {"weight": WEIGHT.astype(np.float16)},
    "Fortran": {"weight": np.asfortranarray(WEIGHT)},
    "wide bias": {"bias": VECTORS["bias"].astype(np.float64)},
    "mixed statistics": {"var": VECTORS["var"].astype(np.float64)},
    "no spread": {"var": np.zeros(6, np.float32), "eps": 0.0},
    "Keras": {"weight": WEIGHT.T.copy(), "output_axis": -1},
}


@pytest.mark.slow
@pytest.mark.parametrize("bench", [True], indirect=True)
@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_it_is_that_of_the_cpu(bench, changes):
    pytest.importorskip("numba_cuda", reason="needs numba-cuda: the extra cuda")
    wanted = nbn.fold_batch_norm(**given(np.asarray, **changes))
    got = nbn.fold_batch_norm(**given(bench.cupy.array, **changes))
    for a, b in zip(got, wanted, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        spacing = 2e-3 if a.dtype == np.float16 else 1e-6
        np.testing.assert_allclose(a.view, b, rtol=spacing, atol=spacing)


def test_vectors_of_the_host_are_sent_along_and_the_rest_is_checked(bench):
    weight = bench.cupy.array(WEIGHT)
    folded, bias = nbn.fold_batch_norm(weight, **VECTORS)
    assert type(folded) is type(bias) is bench.cupy.ndarray
    with pytest.raises(ValueError, match=r"^fold_batch_norm: bias must have shape \(6,\), got"):
        nbn.fold_batch_norm(weight, **{**VECTORS, "bias": np.ones(5)})
    with pytest.raises(TypeError, match=r"^fold_batch_norm: mean must be an array of shape"):
        nbn.fold_batch_norm(weight, **{**VECTORS, "mean": None})
    gamma = bench.cupy.ndarray(bench.cupy.array(VECTORS["gamma"]).view, 1)
    with pytest.raises(TypeError, match="got x on cuda:0 and gamma on cuda:1"):
        nbn.fold_batch_norm(weight, **{**VECTORS, "gamma": gamma})


def test_numbas_arrays_are_folded_on_their_stream(bench, numba):
    make = lambda a: Interface(bench.cupy.array(a), 5)  # noqa: E731
    folded, bias = nbn.fold_batch_norm(**given(make))
    assert folded.__cuda_array_interface__["stream"] == 5
    assert (bias.shape, bias.dtype) == ((6,), np.float32)
    assert {launched.stream for launched in bench.driver.launched} == {5}
    _, bias = nbn.fold_batch_norm(**given(make, bias=None))
    assert bias.dtype == np.float32


def test_no_channels_are_folded_to_none(bench):
    none = bench.cupy.array(np.ones(0, np.float32))
    weight = bench.cupy.empty((0, 5), np.float32)
    folded, bias = nbn.fold_batch_norm(weight, None, None, None, none, none)
    assert (folded.shape, bias.shape) == ((0, 5), (0,))
