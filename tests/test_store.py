"""The files of compiled kernels, and what they depend on. What processes make of it: process/."""

import os
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core import config

from numba_bn._kernels import _cache, _launch, _store
from numba_bn._kernels._launch import Kernel
from numba_bn._kernels.cpu import elementwise

MADE_FROM, CONTENT = bytes(range(32)), b"machine code"
NAME = "kernel.nbc"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A place for compiled kernels, and the only one."""
    monkeypatch.setattr(_store, "places", lambda: _store.Places("default", (tmp_path,)))
    return tmp_path


@pytest.fixture
def places(monkeypatch):
    """Return the places for an environment."""
    for name in ("NUMBA_BN_CACHE", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def of(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return _store.places.__wrapped__()

    return of


def write(folder, stamp="new", name=NAME):
    _store.write(folder, stamp, name, MADE_FROM, CONTENT)
    return folder / f"kernels-{stamp}" / name


def test_what_is_written_is_read(tmp_path):
    write(tmp_path)
    assert _store.read(tmp_path, "new", NAME, MADE_FROM) == CONTENT
    assert _store.read(tmp_path, "new", "other.nbc", MADE_FROM) is None
    assert _store.read(tmp_path, "old", NAME, MADE_FROM) is None
    assert _store.usage(tmp_path) == (1, 64 + len(CONTENT))


@pytest.mark.parametrize("data", [b"", b"x" * 30, b"x" * 64, b"x" * 999], ids=len)
def test_what_was_not_written_there_is_not_believed(tmp_path, data):
    write(tmp_path).write_bytes(data)
    with pytest.raises(_store.DamagedError):
        _store.read(tmp_path, "new", NAME, MADE_FROM)


def test_what_was_made_from_something_else_is_not_believed(tmp_path):
    write(tmp_path)
    with pytest.raises(_store.DamagedError):
        _store.read(tmp_path, "new", NAME, MADE_FROM[::-1])


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        write(tmp_path)
    assert list((tmp_path / "kernels-new").iterdir()) == []


def test_folders_of_other_versions_do_not_pile_up(tmp_path):
    for age, stamp in enumerate("abcdef"):
        folder = write(tmp_path, stamp).parent
        os.utime(folder, (1000 - age, 1000 - age))
    (tmp_path / "kernels-b" / "notes.txt").write_text("somebody else's")
    (tmp_path / "other").mkdir()
    write(tmp_path, "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("kernels-a", "kernels-b", "kernels-c", "kernels-new", "other")
    ]


def test_a_folder_that_is_read_counts_as_used(tmp_path):
    for age, stamp in enumerate("abcd"):
        os.utime(write(tmp_path, stamp).parent, (1000 - age, 1000 - age))
    _store.read(tmp_path, "d", NAME, MADE_FROM)
    write(tmp_path, "new")
    assert sorted(p.name[-1] for p in tmp_path.iterdir()) == ["a", "b", "d", "w"]


def test_folders_hold_no_more_than_their_own(tmp_path):
    kept = write(tmp_path, "old").parent / "notes.txt"
    kept.write_text("somebody else's")
    os.utime(kept.parent, (1, 1))
    for stamp in "abcd":
        write(tmp_path, stamp)
    assert kept.exists()
    assert sorted(p.name for p in kept.parent.iterdir()) == ["notes.txt"]


def test_where_it_is(places, tmp_path):
    package = _store.PACKAGE / "__pycache__"
    assert places().folders[0] == package
    assert places(NUMBA_CACHE_DIR=str(tmp_path)) == (
        *("NUMBA_CACHE_DIR", (tmp_path / "numba_bn",)),
    )
    assert places(NUMBA_BN_CACHE=str(tmp_path)) == ("NUMBA_BN_CACHE", (tmp_path,))
    assert places(NUMBA_BN_CACHE="here").folders == (Path.cwd() / "here",)
    assert places(NUMBA_BN_CACHE="0") == ("NUMBA_BN_CACHE", ())
    assert places(NUMBA_BN_CACHE="1", NUMBA_CACHE_DIR="").origin == "default"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other folders")
def test_where_the_users_is(places, tmp_path):
    home = {"HOME": str(tmp_path)}
    assert places(**home).folders[1:] == (tmp_path / ".cache" / "numba_bn",)
    assert places(**home, XDG_CACHE_HOME="/x").folders[1:] == (Path("/x/numba_bn"),)
    assert places(**home, XDG_CACHE_HOME="relative").folders[1:] == ()
    assert places(HOME=str(tmp_path / "missing"), XDG_CACHE_HOME="").folders[1:] == ()


def test_sources_are_all_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(_store, "PACKAGE", tmp_path)
    assert _store.sources() is None
    (tmp_path / "inner").mkdir()
    seen = set()
    for path in (tmp_path / "a.py", tmp_path / "inner" / "b.py"):
        for text in ("1", "2"):
            path.write_text(text)
            seen.add(_store.sources())
    assert len(seen) == 4
    (tmp_path / "inner" / "b.py").rename(tmp_path / "inner" / "c.py")
    assert _store.sources() not in seen
    monkeypatch.setattr(_store, "PACKAGE", tmp_path / "package.zip")
    assert _store.sources() is None


def loaded(twin):
    return sum(twin.stats.cache_hits.values())


def is_nan(**options):
    """A function of this package's, as far as the cache is concerned, with options of its own."""

    def f(x):
        return x != x

    f.__module__ = elementwise.__name__
    compiled = numba.njit(**options)(f)
    _cache.use(compiled)
    return compiled


@pytest.mark.usefixtures("place")
def test_fastmath_and_strict_are_kept_each_on_its_own():
    for found in (0, 1):
        strict, fast = is_nan(), is_nan(fastmath=True)
        assert (strict(np.nan), fast(np.nan)) == (True, False)
        assert (loaded(strict), loaded(fast)) == (found, found)


def test_functions_of_others_are_not_kept(place, monkeypatch):
    monkeypatch.setattr(_launch, "kernels", [])  # of which this is to be none

    @Kernel
    def nothing(x):
        pass

    nothing(0, 1.0)
    assert nothing.twin(False).stats.cache_path is None
    assert list(place.iterdir()) == []


def test_nothing_is_kept_once_a_source_has_changed(place, monkeypatch):
    monkeypatch.setattr(_store, "sources", lambda: b"something else")
    assert is_nan()(np.nan)
    assert list(place.iterdir()) == []


def test_content_that_is_no_kernel_is_compiled_anew_with_one_warning(place, monkeypatch):
    monkeypatch.setattr(_store, "_warned", False)
    monkeypatch.setattr(_store, "read", lambda *_: b"no pickle")
    compiled = is_nan()
    with pytest.warns(RuntimeWarning, match="cannot be used .UnpicklingError") as caught:
        assert (compiled(np.nan), compiled(1)) == (True, False)
    assert len(caught) == 1
    assert len(list(place.rglob("*.nbc"))) == 2


@pytest.mark.parametrize("setting", _cache._SETTINGS)
def test_settings_that_change_the_code_are_in_the_key(setting, monkeypatch):
    compiled = is_nan()
    sig, codegen = (numba.float64,), compiled.targetctx.codegen()
    before = compiled._cache._identity(sig, codegen)
    monkeypatch.setattr(config, setting, "changed")
    assert compiled._cache._identity(sig, codegen) != before
