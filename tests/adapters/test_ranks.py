"""A rank whose arrays an adapter refuses is heard of by the others, which wait for it."""

import sys

import numpy as np
import pytest
from ranks import together

import numba_bn as nbn
from numba_bn import _adapters

da = pytest.importorskip("dask.array")
xr = pytest.importorskip("xarray")

X = np.arange(12.0).reshape(4, 3)


def labelled(values, *channels):
    return xr.DataArray(values, {"c": list(channels)}, ["n", "c"][-values.ndim :])


def all_stop(function, kind, match):
    """Call a function of a communicator: rank 1 raises an error of its kind, the others stop."""
    results = together(function, size=3)
    assert type(results[1]) is kind
    assert match in str(results[1])
    for rank in (0, 2):
        assert type(results[rank]) is RuntimeError
        assert f"all ranks stop, as rank 1 raised {kind.__name__}: " in str(results[rank])
        assert match in str(results[rank])


def test_coordinates_that_differ_on_one_rank():
    def step(comm):
        gamma = labelled(np.ones(3), "a", "b", "d" if comm.rank == 1 else "c")
        return nbn.batch_norm_train(labelled(X, "a", "b", "c"), gamma, channel_axis="c", comm=comm)

    all_stop(step, ValueError, "batch_norm_train: gamma and x: ")


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: labelled(x, "a", "b", "c")])
def test_a_dask_array_on_one_rank(kind):
    def step(comm):
        return nbn.batch_norm_train(kind(da.from_array(X) if comm.rank == 1 else X), comm=comm)

    all_stop(step, TypeError, "comm must be None for Dask arrays")


@pytest.mark.parametrize("layer", [False, True])
def test_an_adapter_that_one_rank_cannot_import(layer, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba_bn._adapters.xarray", None)
    monkeypatch.setattr(_adapters, "_loaded", {})

    def step(comm):
        x = labelled(X, "a", "b", "c") if comm.rank == 1 else X
        return nbn.BatchNorm(3, comm=comm)(x) if layer else nbn.batch_norm_train(x, comm=comm)

    all_stop(step, ModuleNotFoundError, "numba_bn._adapters.xarray")


def test_labelled_arrays_on_all_ranks_gather_once():
    def step(comm):
        y, stats = nbn.batch_norm_train(labelled(X, "a", "b", "c"), channel_axis="c", comm=comm)
        return comm.collectives, stats.count.tolist(), y.dims

    assert together(step, size=3) == [(1, [12.0] * 3, ("n", "c"))] * 3
