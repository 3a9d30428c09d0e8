"""Results written over what a call reads, and parameters that begin anywhere: run as PTX."""

import fake_cupy
import numpy as np
import pytest

import numba_bn as nbn

pytest.importorskip("numba_cuda", reason="needs numba-cuda: the extra cuda")
pytestmark = pytest.mark.slow

RNG = np.random.default_rng(4)
RUN = pytest.mark.parametrize("bench", [True], indirect=True)
BACKWARDS = {
    "layer": (nbn.layer_norm_backward, (7, 128), {}),
    "rms": (nbn.rms_norm_backward, (7, 128), {}),
    "group": (nbn.group_norm_backward, (3, 6, 49), {"num_groups": 2}),
    "instance": (nbn.instance_norm_backward, (3, 5, 49), {}),
    "batch": (nbn.batch_norm_backward, (3, 5, 49), {}),
}


@RUN
@pytest.mark.parametrize("over", ["dy", "x"])
@pytest.mark.parametrize("norm", BACKWARDS)
def test_gradients_in_place(bench, norm, over):
    function, shape, options = BACKWARDS[norm]
    x, dy = RNG.normal(3.0, 2.0, (2, *shape)).astype(np.float32)
    gamma = RNG.normal(size=shape[-1] if len(shape) == 2 else shape[1]).astype(np.float32)
    known = {"stats": nbn.batch_norm_train(x)[1]} if norm == "batch" else {}
    want = function(dy, x, gamma=gamma, **known, **options)
    for apart in (True, False, False):  # the last is made again
        given = {name: bench.cupy.array(a) for name, a in (("dy", dy), ("x", x))}
        if known:
            known = {"stats": nbn.batch_norm_train(given["x"])[1]}
        out = bench.cupy.array(np.zeros_like(x)) if apart else given[over]
        got = function(**given, gamma=bench.cupy.array(gamma), out=out, **known, **options)
        assert got.dx is out
        for name in ("dx", "dgamma", "dbeta"):
            if (wanted := getattr(want, name, None)) is not None:
                np.testing.assert_allclose(getattr(got, name).view, wanted, rtol=2e-5, atol=2e-5)


@RUN
def test_parameters_that_are_not_aligned(bench):
    x, dy = RNG.normal(size=(2, 7, 128)).astype(np.float32)
    gamma, beta = RNG.normal(size=(2, 128)).astype(np.float32)
    for nbytes in (0, 4, 4):  # the last is made again
        g, b = (fake_cupy.offset(v, nbytes) for v in (gamma, beta))
        y = nbn.layer_norm(bench.cupy.array(x), g, b)
        np.testing.assert_allclose(y.view, nbn.layer_norm(x, gamma, beta), atol=2e-6)
        got = nbn.layer_norm_backward(bench.cupy.array(dy), bench.cupy.array(x), g)
        want = nbn.layer_norm_backward(dy, x, gamma)
        np.testing.assert_allclose(got.dx.view, want.dx, atol=2e-6)
