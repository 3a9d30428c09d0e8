"""PyTorch as a second opinion, where it is installed: outputs, running statistics, gradients."""

import numpy as np
import pytest

import numba_bn as nbn

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.usefixtures("backend")
S = 5
"""PyTorch's own name for the size of its sample inputs."""

# shapes and options of PyTorch's own OpInfo entries, with gamma and beta given or not
BATCH = [
    ((S, S, S), True, 0.6),
    ((3, 2, 4), False, 1e-5),
    ((3, 1), True, 1e-5),
    ((3, 2, 3, 4), True, 0.5),
    ((3, 2, 3, 4), False, 0.5),
    ((2, 1), True, 1e-5),
    ((2, 1), False, 1e-5),
]
LAYER = [(1, 2, 3), (2, 2, 3), (1,), (1, 2), (0, 1)]
GROUP = [((1, 6, 3), 2), ((2, 6, 3), 2), ((1, 3), 1), ((0, 2), 1), ((S, S, S), 1)]
INSTANCE = [(S, S, S), (3, 2, 4), (3, 2, 3, 4)]
over_affine = pytest.mark.parametrize(
    "affine", [(True, True), (True, False), (False, True), (False, False)]
)
LIMITS = {np.float32: 2e-6, np.float64: 1e-12}
over_dtypes = pytest.mark.parametrize("dtype", LIMITS)


class Twins:
    """The same arrays for both libraries."""

    def __init__(self, shape, parameters, dtype, affine=(True, True)):
        rng = np.random.default_rng(15)
        self.dtype, self.limit = dtype, LIMITS[dtype]
        self.x, self.dy = rng.normal(3, 2, (2, *shape)).astype(dtype)
        vectors = rng.normal(size=(2, *parameters)).astype(dtype)
        self.gamma, self.beta = (v if a else None for v, a in zip(vectors, affine, strict=True))
        self.theirs = [
            None if v is None else torch.tensor(v, requires_grad=True)
            for v in (self.x, self.gamma, self.beta)
        ]

    def near(self, got, want):
        want = want.detach().numpy()
        assert got.shape == want.shape
        scale = max(1.0, np.abs(want).max(initial=0))
        np.testing.assert_allclose(got, want, rtol=self.limit, atol=20 * self.limit * scale)

    def check(self, y, theirs, gradients):
        """Compare the output, and every gradient PyTorch has."""
        self.near(y, theirs)
        theirs.backward(torch.tensor(self.dy))
        for ours, leaf in zip(gradients, self.theirs, strict=False):
            if leaf is not None:
                self.near(ours, leaf.grad)


@pytest.mark.parametrize(("shape", "training", "eps"), BATCH)
@over_affine
@over_dtypes
def test_batch_norm(shape, training, eps, affine, dtype):
    t = Twins(shape, shape[1:2], dtype, affine)
    given = {}
    if not training:
        mean, var = np.random.default_rng(16).uniform(1, 3, (2, shape[1])).astype(dtype)
        given = {"mean": mean, "var": var}
    running = [torch.tensor(v) for v in given.values()] or [None, None]
    theirs = F.batch_norm(t.theirs[0], *running, *t.theirs[1:], training=training, eps=eps)
    y = nbn.batch_norm(t.x, t.gamma, t.beta, eps=eps, **given)
    known = given or {"stats": nbn.batch_norm_train(t.x)[1]}
    t.check(y, theirs, nbn.batch_norm_backward(t.dy, t.x, t.gamma, eps=eps, **known)[:3])


@pytest.mark.parametrize("shape", LAYER)
@pytest.mark.parametrize("eps", [1e-5, 0.5])
@over_affine
@over_dtypes
def test_layer_norm(shape, eps, affine, dtype):
    for axes in {1, len(shape)}:
        over = shape[-axes:]
        t = Twins(shape, over, dtype, affine)
        theirs = F.layer_norm(t.theirs[0], over, *t.theirs[1:], eps=eps)
        options = {"axis": tuple(range(-axes, 0)), "eps": eps}
        y = nbn.layer_norm(t.x, t.gamma, t.beta, **options)
        t.check(y, theirs, nbn.layer_norm_backward(t.dy, t.x, t.gamma, **options)[:3])


@pytest.mark.parametrize("shape", [*LAYER[:4], (7, 33)])
@pytest.mark.parametrize("affine", [(True, False), (False, False)])
@over_dtypes
def test_rms_norm(shape, affine, dtype):
    t = Twins(shape, shape[-1:], dtype, affine)
    theirs = F.rms_norm(t.theirs[0], shape[-1:], t.theirs[1], eps=0.5)
    y = nbn.rms_norm(t.x, t.gamma, eps=0.5)
    t.check(y, theirs, nbn.rms_norm_backward(t.dy, t.x, t.gamma, eps=0.5)[:2])


@pytest.mark.parametrize(("shape", "groups"), [*GROUP, ((2, 6, 7, 7), 3)])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
@over_affine
@over_dtypes
def test_group_norm(shape, groups, eps, affine, dtype):
    t = Twins(shape, shape[1:2], dtype, affine)
    x, gamma, beta = t.theirs
    if gamma is None:  # PyTorch cannot differentiate with a bias and no weight
        gamma = torch.ones(shape[1], dtype=x.dtype)
    theirs = F.group_norm(x, groups, gamma, beta, eps=eps)
    y = nbn.group_norm(t.x, groups, t.gamma, t.beta, eps=eps)
    t.check(y, theirs, nbn.group_norm_backward(t.dy, t.x, groups, t.gamma, eps=eps)[:3])


@pytest.mark.parametrize("shape", INSTANCE)
@over_affine
@over_dtypes
def test_instance_norm(shape, affine, dtype):
    t = Twins(shape, shape[1:2], dtype, affine)
    theirs = F.instance_norm(t.theirs[0], None, None, *t.theirs[1:])
    y = nbn.instance_norm(t.x, t.gamma, t.beta)
    t.check(y, theirs, nbn.instance_norm_backward(t.dy, t.x, t.gamma)[:3])


@pytest.mark.parametrize("call", [nbn.layer_norm, nbn.batch_norm, nbn.instance_norm])
def test_the_negative_eps_of_pytorchs_cases_is_refused(call):
    with pytest.raises(ValueError, match=r"eps must be finite and >= 0, got -0\.5"):
        call(np.ones((2, 2, 3)), eps=-0.5)


@pytest.mark.parametrize("channel_axis", [1, -1])
@over_dtypes
def test_channels_last(channel_axis, dtype):
    t = Twins((2, 3, 5, 7), (3,), dtype)
    x, dy = t.x, t.dy
    if channel_axis == -1:
        x, dy = (np.ascontiguousarray(np.moveaxis(v, 1, -1)) for v in (x, dy))
    y, stats = nbn.batch_norm_train(x, t.gamma, t.beta, channel_axis=channel_axis)
    given = {"stats": stats, "channel_axis": channel_axis}
    dx, *gradients = nbn.batch_norm_backward(dy, x, t.gamma, **given)[:3]
    theirs = F.batch_norm(t.theirs[0], None, None, *t.theirs[1:], training=True)
    y, dx = np.moveaxis(y, channel_axis, 1), np.moveaxis(dx, channel_axis, 1)
    t.check(y, theirs, (dx, *gradients))


LAYERS = [
    (nbn.BatchNorm1d, torch.nn.BatchNorm1d, (6, 3)),
    (nbn.BatchNorm1d, torch.nn.BatchNorm1d, (6, 3, 4)),
    (nbn.BatchNorm2d, torch.nn.BatchNorm2d, (2, 3, 4, 5)),
    (nbn.BatchNorm3d, torch.nn.BatchNorm3d, (2, 3, 2, 4, 5)),
]


@pytest.mark.parametrize(("ours", "theirs", "shape"), LAYERS)
@pytest.mark.parametrize("momentum", [0.1, 0.5, 0.0])
def test_a_layer_over_several_steps(ours, theirs, shape, momentum):
    rng = np.random.default_rng(17)
    layer = ours(3, momentum=momentum, dtype=np.float64)
    module = theirs(3, momentum=momentum, dtype=torch.float64)
    layer.gamma[...], layer.beta[...] = rng.normal(size=(2, 3))
    with torch.no_grad():
        module.weight.copy_(torch.tensor(layer.gamma))
        module.bias.copy_(torch.tensor(layer.beta))
    close = {"rtol": 1e-12, "atol": 1e-11}
    for training in (True, True, False, True, False):
        layer.train() if training else layer.eval()
        module.train(training)
        module.zero_grad()
        x, dy = rng.normal(2, 3, (2, *shape))
        leaf = torch.tensor(x, requires_grad=True)
        expected = module(leaf)
        expected.backward(torch.tensor(dy))
        np.testing.assert_allclose(layer(x), expected.detach().numpy(), **close)
        np.testing.assert_allclose(layer.backward(dy), leaf.grad.numpy(), **close)
        np.testing.assert_allclose(layer.dgamma, module.weight.grad.numpy(), **close)
        np.testing.assert_allclose(layer.dbeta, module.bias.grad.numpy(), **close)
        np.testing.assert_allclose(layer.running_mean, module.running_mean.numpy(), **close)
        np.testing.assert_allclose(layer.running_var, module.running_var.numpy(), **close)
        assert layer.num_batches_tracked == int(module.num_batches_tracked)


def test_a_state_dict_from_pytorch():
    module = torch.nn.BatchNorm2d(3)
    module(torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)))
    layer = nbn.BatchNorm2d(3)
    layer.load_state_dict({k: v.detach().numpy() for k, v in module.state_dict().items()})
    x = np.random.default_rng(18).normal(size=(2, 3, 4, 4)).astype(np.float32)
    expected = module.eval()(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(layer.eval()(x), expected, rtol=1e-5, atol=1e-5)
    assert set(layer.state_dict()) == set(module.state_dict())
