"""Arrays of other libraries reach the adapter of their kind; all else goes straight on."""

import sys
import types

import numpy as np
import pytest

import numba_bn as nbn
from numba_bn import _adapters


class Theirs:
    """An array of another library."""


class Derived(Theirs):
    """A user's own class of it."""


Theirs.__module__ = "theirs.core"


@pytest.fixture
def calls(monkeypatch):
    """An adapter that notes its calls."""
    seen = []
    home = types.ModuleType("adapter_of_theirs")
    home.call = lambda function, args, options: seen.append((function, args, options)) or "result"
    monkeypatch.setitem(sys.modules, home.__name__, home)
    monkeypatch.setattr(_adapters, "_HOMES", {"theirs": home.__name__})
    monkeypatch.setattr(_adapters, "_loaded", {})
    _adapters._home_of.cache_clear()
    yield seen
    _adapters._home_of.cache_clear()


@pytest.mark.parametrize("kind", [Theirs, Derived])
def test_an_array_of_another_kind_goes_to_its_adapter_with_all_arguments(calls, kind):
    x = kind()
    assert nbn.batch_norm(x, None, eps=0.1) == "result"
    ((function, args, options),) = calls
    assert function.__name__ == "batch_norm"
    assert args == (x, None)
    assert options == {"eps": 0.1}


def test_it_may_come_by_name(calls):
    assert nbn.layer_norm(x=Theirs()) == "result"
    assert nbn.channel_stats(x=Theirs()) == "result"


def test_what_the_adapter_gets_takes_numpy_arrays(calls):
    nbn.channel_stats(Theirs())
    assert calls[0][0](np.ones((2, 1))).mean == 1


def test_lists_and_numpy_arrays_pass(calls):
    assert nbn.layer_norm([[1.0, 1.0]]).tolist() == [[0.0, 0.0]]
    assert nbn.layer_norm(np.ones((1, 2))).tolist() == [[0.0, 0.0]]
    assert calls == []


def test_another_kind_beside_a_numpy_array_is_refused_as_any_stranger_is(calls):
    with pytest.raises(TypeError, match="gamma must be a NumPy array, got Theirs"):
        nbn.layer_norm(np.ones((1, 2)), Theirs())
    assert calls == []
