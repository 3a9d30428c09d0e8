"""Train a network, evaluate it, and ready its batch norm for test time."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np
from _data import Dataset, Samples, require
from _network import Adam, Array, Network, Weighted, cross_entropy

import numba_bn as nbn

BATCH_SIZE = 64


class Epoch(NamedTuple):
    """What an epoch of training came to."""

    number: int
    train_loss: float
    val_loss: float
    val_accuracy: float


class EarlyStopping:
    """Keep the best network; stop when `patience` epochs have not made it better by `delta`."""

    def __init__(self, network: Network, patience: int = 3, delta: float = 0.001) -> None:
        self.patience = patience
        self.delta = delta
        self.best = copy.deepcopy(network)
        self.best_epoch = 0
        self.best_loss = math.inf

    def update(self, epoch: Epoch, network: Network) -> bool:
        """Take in an epoch and the network after it; True when it is time to stop."""
        if epoch.val_loss < self.best_loss - self.delta:
            self.best = copy.deepcopy(network)
            self.best_epoch = epoch.number
            self.best_loss = epoch.val_loss
        return epoch.number - self.best_epoch >= self.patience


def train(
    network: Network,
    data: Dataset,
    rng: np.random.Generator,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
) -> Iterator[Epoch]:
    """Train the network, an epoch at each step of the iterator."""
    optimizer = Adam(network, learning_rate)
    for number in range(1, epochs + 1):
        train_loss = train_epoch(network, optimizer, data.train, rng, f"Epoch {number}")
        val_loss, val_accuracy = evaluate(network, data.val)
        yield Epoch(number, train_loss, val_loss, val_accuracy)


def train_epoch(
    network: Network, optimizer: Adam, samples: Samples, rng: np.random.Generator, title: str
) -> float:
    """Take one step of the optimizer per batch, and return the mean loss."""
    tqdm = require("tqdm").tqdm
    network.train()
    total = 0.0
    order = batches(rng.permutation(len(samples.labels)))
    # disable=None: a bar on a terminal, nothing elsewhere
    for batch in tqdm(order, desc=title, unit="batch", leave=False, disable=None):
        loss, gradient = cross_entropy(network(samples.images[batch]), samples.labels[batch])
        network.backward(gradient)
        optimizer.step()
        total += loss * len(batch)
    return total / len(samples.labels)


def batches(x: Array) -> list[Array]:
    """Split along axis 0 into batches whose lengths differ by 1 at most.

    So that no batch is left with a single sample, which has no variance to train on.
    """
    return np.array_split(x, math.ceil(len(x) / BATCH_SIZE))


def predict(network: Network, images: Array) -> Array:
    """Return the logits at test time."""
    network.eval()
    return np.concatenate([network(batch) for batch in batches(images)])


def evaluate(network: Network, samples: Samples) -> tuple[float, float]:
    """Return loss and accuracy at test time."""
    logits = predict(network, samples.images)
    loss, _ = cross_entropy(logits, samples.labels)
    return loss, float(np.mean(logits.argmax(axis=1) == samples.labels))


def with_exact_statistics(network: Network, images: Array) -> Network:
    """Return the network with each norm's statistics those of all `images`.

    The running ones are an average over batches, taken while the weights before the norm changed.
    """
    exact = copy.deepcopy(network).eval()
    for i, norm in enumerate(exact.layers):
        if isinstance(norm, nbn.BatchNorm):
            before = Network(exact.layers[:i])
            stats = reduce(add, (nbn.channel_stats(before(batch)) for batch in batches(images)))
            statistics = {"running_mean": stats.mean, "running_var": stats.var(correction=1)}
            norm.load_state_dict(norm.state_dict() | statistics)
    return exact


def with_folded_norm(network: Network) -> Network:
    """Return the network with each norm absorbed by the linear or convolution layer before it."""
    folded = Network([])
    for layer in copy.deepcopy(network).layers:
        if not isinstance(layer, nbn.BatchNorm):
            folded.layers.append(layer)
            continue
        before = folded.layers[-1]
        assert isinstance(before, Weighted)
        before.weight, before.bias = nbn.fold_batch_norm(
            before.weight,
            before.bias,
            layer.gamma,
            layer.beta,
            layer.running_mean,
            layer.running_var,
            eps=layer.eps,
        )
    return folded
