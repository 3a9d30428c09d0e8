"""Statistics on disk: written whole or not at all, and read without believing what is there."""

import contextlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import numba_bn as nbn

DATA = np.random.default_rng(0).normal(5.0, 3.0, (30, 4))


def stats(*rows):
    """Statistics of rows of values, one column a channel."""
    return nbn.channel_stats(np.array(rows, float))


@pytest.mark.parametrize("kind", [str, os.fsencode, lambda p: p])
@pytest.mark.parametrize("name", ["statistics", "statistics.npz", "statistics.of.all", "σ²"])
def test_saves_and_loads(tmp_path, kind, name):
    found = nbn.ChannelStats([0, 3], [np.nan, 1 / 3], [0, 1e-300])
    path = kind(tmp_path / name)
    found.save(path)
    assert nbn.ChannelStats.load(path) == found
    assert os.listdir(tmp_path) == [name]


def test_the_file_is_an_npz_others_can_read(tmp_path):
    path = tmp_path / "statistics.npz"
    mask = os.umask(0o022)
    try:
        nbn.channel_stats(DATA).save(path)
    finally:
        os.umask(mask)
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file) == ["count", "m2", "mean", "mean_low"]
        np.testing.assert_array_equal(file["count"], [30.0] * 4)
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o644


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "statistics.npz"
    old = stats([1.0])
    old.save(path)

    def full(file, **_):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        stats([2.0]).save(path)
    assert nbn.ChannelStats.load(path) == old
    assert os.listdir(tmp_path) == ["statistics.npz"]


FULL_DISK = """
import resource, signal, sys
import numba_bn as nbn, numpy as np

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
nbn.ChannelStats([1], [2], [3]).save(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    nbn.ChannelStats(*np.ones((3, 1000))).save(sys.argv[1])
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.parametrize("room", [1, 1000, 8000, 20_000])
def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path, room):
    path = tmp_path / "statistics.npz"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, str(path), str(room)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    text = f"ChannelStats.save: cannot write {os.path.realpath(path)} (File too large)"
    assert (done.stdout, done.stderr) == (f"[Errno 27] {text}\n", "")
    assert nbn.ChannelStats.load(path) == nbn.ChannelStats([1], [2], [3])
    assert os.listdir(tmp_path) == ["statistics.npz"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    link, path = tmp_path / "here" / "statistics.npz", tmp_path / "there" / "statistics.npz"
    link.symlink_to(path)
    for found in (stats([1.0]), stats([2.0])):
        found.save(link)
        assert link.is_symlink()
        assert nbn.ChannelStats.load(path) == nbn.ChannelStats.load(link) == found
    assert os.listdir(tmp_path / "there") == ["statistics.npz"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file that is none")
def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    """Else saving to /dev/null as root would be the end of /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match=r"^ChannelStats.save: path") as caught:
            stats([1.0]).save(path)
        text = f"ChannelStats.save: path must be that of a regular file or a new one, got {path}"
        assert str(caught.value) == text
    assert (tmp_path / "pipe").is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        nbn.ChannelStats.load(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match=r"^\[Errno 2\] ChannelStats.save: cannot write /"):
        stats([1.0]).save(tmp_path / "none" / "statistics.npz")


@pytest.mark.parametrize("path", [None, 0, 1.5])
def test_what_is_no_path(path):
    """Else 0 would be the standard input, read and then closed."""
    for name, call in (("load", nbn.ChannelStats.load), ("save", stats([1.0]).save)):
        with pytest.raises(TypeError, match=rf"^ChannelStats.{name}: path must be a path, got "):
            call(path)


class NotAFileError(Exception):
    """The error with the right words."""


def load(path):
    """Load, and see that an error is the one that is promised."""
    try:
        return nbn.ChannelStats.load(path)
    except ValueError as error:
        if str(error).startswith(f"ChannelStats.load: {path} is not a file of ChannelStats ("):
            raise NotAFileError from error
        raise


def refused(path):
    with pytest.raises(NotAFileError):
        load(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a file, and what is in it."""
    path = tmp_path_factory.mktemp("whole") / "statistics.npz"
    found = nbn.channel_stats(DATA)
    found.save(path)
    return path.read_bytes(), found


def test_a_file_cut_short_anywhere(tmp_path, whole):
    content, _ = whole
    path = tmp_path / "statistics.npz"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        refused(path)


@pytest.mark.parametrize("flip", [0xFF, 0x01, 0x10, 0x80])
def test_a_damaged_file(tmp_path, flip, whole):
    content, found = whole
    path = tmp_path / "statistics.npz"
    harmless = 0  # bytes that say nothing, such as a date
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :])
        with contextlib.suppress(NotAFileError):
            assert load(path) == found
            harmless += 1
    assert harmless < len(content) / 3


def test_a_file_with_other_bytes_in_it(tmp_path, whole):
    content, found = whole
    path = tmp_path / "statistics.npz"
    rng = np.random.default_rng(4)
    for _ in range(300):
        start, stop = np.sort(rng.integers(0, len(content), 2))
        path.write_bytes(content[:start] + rng.bytes(stop - start) + content[stop:])
        with contextlib.suppress(NotAFileError):
            assert load(path) == found


@pytest.mark.parametrize(
    "content",
    [
        {"count": [1.0], "mean": [1.0]},
        {"count": [1.0], "mean": [1.0], "m2": [1.0, 2.0]},
        {"count": ["one"], "mean": [1.0], "m2": [1.0]},
    ],
)
def test_a_file_of_something_else(tmp_path, content):
    path = tmp_path / "other.npz"
    np.savez(path, **content)
    refused(path)
    np.save(tmp_path / "other.npy", [1.0])
    refused(tmp_path / "other.npy")


class Bomb:
    """A pickle that does harm when it is opened."""

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_loading_executes_nothing(tmp_path):
    bomb = Bomb()
    bomb.path = str(tmp_path / "harm")
    path = tmp_path / "bomb.npz"
    path.write_bytes(pickle.dumps(bomb))
    refused(path)
    np.savez(path, count=np.array([bomb], object), mean=[1.0], m2=[1.0])
    refused(path)
    with open(path, "wb") as file:
        np.save(file, np.array([bomb], object), allow_pickle=True)
    refused(path)
    assert not (tmp_path / "harm").exists()
    with pytest.raises(FileExistsError):  # it is one
        [np.load(path, allow_pickle=True) for _ in range(2)]
