"""Layers, loss and optimizer in plain NumPy; the norm between them is numba_bn's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import DTypeLike, NDArray

import numba_bn as nbn

Array = NDArray[Any]

KERNEL = 3
MARGIN = KERNEL // 2
HIDDEN_UNITS = 256
CONV_CHANNELS = 32


class Layer(Protocol):
    """What all layers do, `numba_bn.BatchNorm` among them."""

    def __call__(self, x: Array) -> Array:
        """Return the output for `x`."""

    def backward(self, dy: Array) -> Array:
        """Return dx of the last call, given the gradient `dy` into it."""


class Weighted:
    """A layer with a weight of shape (outputs, inputs, ...) and, if asked for, a bias."""

    def __init__(
        self,
        shape: tuple[int, ...],
        rng: np.random.Generator,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        fan_in = math.prod(shape[1:])
        self.weight: Array = rng.normal(scale=math.sqrt(2 / fan_in), size=shape).astype(dtype)
        self.bias: Array | None = np.zeros(shape[0], dtype) if bias else None
        self.dweight: Array | None = None
        self.dbias: Array | None = None
        self.x: Array = np.empty(0)


class Linear(Weighted):
    """``y = x @ weight.T + bias``."""

    def __call__(self, x: Array) -> Array:
        self.x = x
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias

    def backward(self, dy: Array) -> Array:
        self.dweight = dy.T @ self.x
        if self.bias is not None:
            self.dbias = dy.sum(axis=0)
        return dy @ self.weight


class Conv(Weighted):
    """Convolution, padded so that images (N, C, H, W) keep their size."""

    def __call__(self, x: Array) -> Array:
        self.x = x
        y = np.tensordot(windows(x), self.weight, axes=((1, 4, 5), (1, 2, 3)))
        if self.bias is not None:
            y += self.bias
        # channels are last in memory: the norm takes that as it is, without a copy
        return np.moveaxis(y, -1, 1)

    def backward(self, dy: Array) -> Array:
        self.dweight = np.tensordot(dy, windows(self.x), axes=((0, 2, 3), (0, 2, 3)))
        if self.bias is not None:
            self.dbias = dy.sum(axis=(0, 2, 3))
        n, channels, height, width = self.x.shape
        dwindows = np.tensordot(dy, self.weight, axes=(1, 0))
        padded = np.zeros((n, height + KERNEL - 1, width + KERNEL - 1, channels), dy.dtype)
        for i, j in np.ndindex(KERNEL, KERNEL):
            padded[:, i : i + height, j : j + width] += dwindows[..., i, j]
        return np.moveaxis(padded[:, MARGIN:-MARGIN, MARGIN:-MARGIN], -1, 1)


def windows(x: Array) -> Array:
    """Return the window around each pixel of images (N, C, H, W), as (N, C, H, W, 3, 3)."""
    margin = (MARGIN, MARGIN)
    padded = np.pad(x, ((0, 0), (0, 0), margin, margin))
    return sliding_window_view(padded, (KERNEL, KERNEL), axis=(2, 3))


class ReLU:
    """``y = max(x, 0)``."""

    def __call__(self, x: Array) -> Array:
        self.y = np.maximum(x, 0)
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy * (self.y > 0)


class MaxPool:
    """Maximum of each 2×2 block of pixels; an odd last row or column is left out."""

    def __call__(self, x: Array) -> Array:
        self.x = x
        return self._blocks(x).max(axis=(3, 5))

    def backward(self, dy: Array) -> Array:
        blocks = self._blocks(self.x)
        largest = blocks == blocks.max(axis=(3, 5), keepdims=True)
        shares = largest / largest.sum(axis=(3, 5), keepdims=True, dtype=dy.dtype)
        dx = np.zeros_like(self.x)
        self._blocks(dx)[...] = shares * dy[:, :, :, None, :, None]
        return dx

    @staticmethod
    def _blocks(x: Array) -> Array:
        """See images (N, C, H, W) as blocks (N, C, H // 2, 2, W // 2, 2), without a copy."""
        n, channels, height, width = x.shape
        even = x[:, :, : height // 2 * 2, : width // 2 * 2]
        return even.reshape(n, channels, height // 2, 2, width // 2, 2)


class Flatten:
    """From (N, C, H, W) to (N, C * H * W)."""

    def __call__(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: Array) -> Array:
        return dy.reshape(self.shape)


class Network:
    """Layers in a row."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def __call__(self, x: Array) -> Array:
        """Return the logits, shape (N, classes), for images (N, 1, H, W)."""
        for layer in self.layers:
            x = layer(x)
        return x

    def backward(self, dy: Array) -> Array:
        """Set the gradient of every parameter; return the gradient into the images."""
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def train(self, mode: bool = True) -> Network:
        """Normalize by the batch's statistics, or with False by the running ones."""
        for layer in self.layers:
            if isinstance(layer, nbn.BatchNorm):
                layer.train(mode)
        return self

    def eval(self) -> Network:
        """Normalize by the running statistics."""
        return self.train(False)

    def parameters(self) -> list[tuple[Array, Array]]:
        """Return each parameter with its gradient of the last `backward`."""
        return [
            (parameter, getattr(layer, f"d{name}"))
            for layer in self.layers
            for name in ("weight", "bias", "gamma", "beta")
            if (parameter := getattr(layer, name, None)) is not None
        ]


def build_network(
    model: str,
    image_size: tuple[int, int],
    classes: int,
    rng: np.random.Generator,
    *,
    norm: bool = True,
    dtype: DTypeLike = np.float32,
    comm: Any = None,
) -> Network:
    """Return the network "mlp" or "cnn", with or without its batch norm, by the ranks of `comm`."""
    height, width = image_size
    front: list[Layer]
    middle: list[Layer]
    # The norm subtracts the batch's mean and, with it, any bias added before; beta takes its place.
    options: dict[str, Any] = {"bias": not norm, "dtype": dtype}
    if model == "mlp":
        features = HIDDEN_UNITS
        front = [Flatten(), Linear((HIDDEN_UNITS, height * width), rng, **options)]
        middle = [nbn.BatchNorm1d(HIDDEN_UNITS, dtype=dtype, comm=comm)] if norm else []
        back: list[Layer] = [ReLU()]
    else:
        features = CONV_CHANNELS * (height // 2) * (width // 2)
        front = [Conv((CONV_CHANNELS, 1, KERNEL, KERNEL), rng, **options)]
        middle = [nbn.BatchNorm2d(CONV_CHANNELS, dtype=dtype, comm=comm)] if norm else []
        back = [ReLU(), MaxPool(), Flatten()]
    return Network([*front, *middle, *back, Linear((classes, features), rng, dtype=dtype)])


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Return the mean of ``-log(softmax(logits)[label])`` and its gradient."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    own = np.arange(len(labels)), labels
    gradient = np.exp(log_probability)
    gradient[own] -= 1
    return -float(log_probability[own].mean()), gradient / len(labels)


class Adam:
    """D. P. Kingma, J. L. Ba, "Adam", ICLR 2015, algorithm 1."""

    beta1, beta2, eps = 0.9, 0.999, 1e-8

    def __init__(self, network: Network, learning_rate: float = 1e-3) -> None:
        self.network = network
        self.learning_rate = learning_rate
        self.steps = 0
        self.moments = [(np.zeros_like(p), np.zeros_like(p)) for p, _ in network.parameters()]

    def step(self) -> None:
        """Move each parameter against its gradient."""
        self.steps += 1
        unbias1 = 1 - self.beta1**self.steps
        unbias2 = 1 - self.beta2**self.steps
        for (parameter, gradient), (m, v) in zip(
            self.network.parameters(), self.moments, strict=True
        ):
            m += (1 - self.beta1) * (gradient - m)
            v += (1 - self.beta2) * (gradient**2 - v)
            parameter -= self.learning_rate * (m / unbias1) / (np.sqrt(v / unbias2) + self.eps)
