"""The same call, over and over, at any number of threads, under any layer: the same bits."""

import harness
import pytest

COUNTS = (1, 2, 3, 8, 64)


@pytest.mark.parametrize("repeats", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_bits(repeats):
    layers = [layer for layer in harness.LAYERS if harness.missing(layer) is None]
    threads = {"NUMBA_NUM_THREADS": "64", "limit": 300}
    found = {
        layer: harness.run(layer, "threads_scenarios", "bits", repeats, *COUNTS, **threads)
        for layer in layers
    }
    first = found[layers[0]]
    assert len(first.split()) == 1
    assert found == dict.fromkeys(layers, first)
