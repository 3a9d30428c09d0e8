"""The node tests that ONNX gives to every backend, with a tighter tolerance."""

import importlib
import pkgutil
import re
import warnings
from collections import Counter
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from onnx.backend.base import Backend, BackendRep
from onnx.backend.test import BackendTest, loader
from onnx.helper import get_node_attr_value
from onnx.numpy_helper import to_array

import numba_bn as nbn

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
WANTED = {
    "test_batchnorm_": 4,
    "test_instancenorm_": 2,
    "test_group_normalization_": 2,
    "test_layer_normalization_": 19,
    "test_rms_normalization_": 19,
    "test_BatchNorm": 5,
}
IGNORED = ("stash_type", "is_test")
"""The type of the sums is ours to choose; the stored models are of test time throughout."""
OURS = re.compile(rf"({'|'.join(WANTED)})(?!.*_expanded).*_cpu$")


def batch_normalization(x, gamma, beta, mean, var, *, epsilon=1e-5, momentum=0.9, training_mode=0):
    """In training ONNX also returns running statistics, with the variance of the population."""
    if not training_mode:
        return (nbn.batch_norm(x, gamma, beta, mean=mean, var=var, eps=epsilon),)
    y, stats = nbn.batch_norm_train(x, gamma, beta, eps=epsilon)
    running = nbn.RunningStats(mean.size, momentum=1 - momentum, correction=0)
    running.running_mean, running.running_var = mean, var
    running.update(stats)
    return y, running.running_mean.astype(mean.dtype), running.running_var.astype(var.dtype)


def instance_normalization(x, gamma, beta, *, epsilon=1e-5):
    return (nbn.instance_norm(x, gamma, beta, eps=epsilon),)


def group_normalization(x, gamma, beta, *, num_groups, epsilon=1e-5):
    return (nbn.group_norm(x, num_groups, gamma, beta, eps=epsilon),)


def layer_normalization(x, gamma, beta=None, *, axis=-1, epsilon=1e-5):
    """ONNX returns the mean and 1/√(var + eps) of the rows too."""
    axes = tuple(range(axis % x.ndim, x.ndim))
    y = nbn.layer_norm(x, gamma, beta, axis=axes, eps=epsilon)
    rows = tuple(range(axis % x.ndim))
    shape = [n if a in rows else 1 for a, n in enumerate(x.shape)]
    if not rows:
        stats = nbn.channel_stats(x.reshape(-1, 1))
    else:
        stats = nbn.channel_stats(x, channel_axis=rows)
    rstd = 1 / np.sqrt(stats.var() + epsilon)
    return y, *(v.reshape(shape).astype(x.dtype) for v in (stats.mean, rstd))


def rms_normalization(x, gamma, *, axis=-1, epsilon=1e-5):
    return (nbn.rms_norm(x, gamma, axis=tuple(range(axis % x.ndim, x.ndim)), eps=epsilon),)


OPERATORS = {
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
}


class Prepared(BackendRep):
    """A graph of one node: a norm."""

    def __init__(self, graph):
        self.graph = graph

    def run(self, inputs, **kwargs):
        (node,) = self.graph.node
        known = {t.name: to_array(t) for t in self.graph.initializer}
        free = [i.name for i in self.graph.input if i.name not in known]
        known.update(zip(free, inputs, strict=True))
        attributes = {a.name: get_node_attr_value(node, a.name) for a in node.attribute}
        attributes = {k: v for k, v in attributes.items() if k not in IGNORED}
        results = OPERATORS[node.op_type](*(known[name] for name in node.input), **attributes)
        return list(results[: len(self.graph.output)])


class NumbaBackend(Backend):
    @classmethod
    def prepare(cls, model, device="CPU", **kwargs):
        return Prepared(model.graph)

    @classmethod
    def supports_device(cls, device):
        return device == "CPU"


def import_norms(package):
    """Import those modules of examples that norms have: ONNX computes all of a module's."""
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if "norm" in module.name:
            importlib.import_module(module.name)


with warnings.catch_warnings(), patch.object(loader, "import_recursive", import_norms):
    warnings.simplefilter("ignore")  # of the examples that ONNX computes here
    GROUPS = BackendTest(NumbaBackend, __name__).test_cases.values()
CASES = {n: test for group in GROUPS for n, test in vars(group).items() if OURS.match(n)}


def test_none_is_missing():
    found = Counter(OURS.match(name).group(1) for name in CASES)
    assert found == WANTED, onnx.__version__


@pytest.mark.parametrize("name", sorted(CASES))
def test_node(backend, name):
    CASES[name](None, **TOLERANCE)


def test_a_node_test_can_fail(monkeypatch):
    monkeypatch.setitem(OPERATORS, "RMSNormalization", lambda x, gamma, **_: (x * 1.0001,))
    with pytest.raises(AssertionError, match="Not equal to tolerance rtol=1e-05, atol=1e-05"):
        CASES["test_rms_normalization_2d_axis1_cpu"](None, **TOLERANCE)
