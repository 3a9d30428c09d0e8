"""What the commands on data say of what is wrong: one line, the file's name, and exit code 1."""

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_files import MAKE, X, close, statistics, zarr_array

import numba_bn as nbn
from numba_bn import _cli
from numba_bn._cli import plot

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("stats missing.npy", "there is no file missing.npy"),
        ("stats none*.npy", "there is no file none*.npy"),
        ("stats x.txt", "x.txt is not .npy, .npz, HDF5 or zarr; raw values need --dtype and --sh"),
        ("stats x.txt --dtype float32", "--dtype and --shape go together"),
        ("stats x.txt --dtype f4 --shape 2,3", "x.txt has 6 bytes; float32 of shape (2, 3) has 24"),
        (
            "stats x.txt --dtype f2 --shape -3,-1",
            "--shape must have no negative lengths, got (-3, -",
        ),
        ("stats x.txt --dtype f5 --shape 2,3", "--dtype must name a dtype, got f5"),
        ("stats x.npy --channel-axis 3", "x.npy: channel_stats: channel_axis must lie in [-3, 3)"),
        (
            "stats two.npz",
            "two.npz needs the name of an array in it, as in two.npz:name; it has a,",
        ),
        ("stats two.npz:c", "two.npz needs the name of an array in it, as in two.npz:name; it has"),
        ("stats two.h5", "two.h5 needs the name of an array in it, as in two.h5:name; it has a, c"),
        ("stats two.h5:/a", "two.h5 needs the name of an array in it"),
        ("stats group.zarr", "group.zarr needs the name of an array in it"),
        (
            "stats x.npy two.npz:b",
            "two.npz:b: ChannelStats.merge: other must have channels of shape (4,)",
        ),
        ("merge s.npz t.npz", "t.npz: ChannelStats.merge: other must have channels of shape (4,)"),
        (
            "normalize x.np? y.npy --stats s.npz",
            "SOURCE must be a single array, got x.npy, x.npz",
        ),
        ("merge x.npy", "ChannelStats.load: x.npy is not a file of ChannelStats"),
        ("normalize x.npy y.txt --stats s.npz", "y.txt must end in .npy or .zarr, or be file.h5:"),
        ("normalize x.npy odd:name.npy --stats s.npz", "odd:name.npy is there already; remove it,"),
        ("normalize x.npy ./x.npy --stats s.npz", "SOURCE and TARGET must be different files, got"),
        (
            "normalize x.h5:/x x.h5:/y --stats s.npz",
            "SOURCE and TARGET must be different files, got x.h5:/x and x.h5:/y\n",
        ),
        ("normalize x.npy y.npy --stats x.npz", "ChannelStats.load: x.npz is not a file of"),
        ("normalize x.npy y.npy --stats s.npz --eps -1", "normalize_chunks: eps must be finite"),
    ],
)
def test_errors_are_on_stderr_without_a_traceback(command, text, capsys):
    for make in MAKE.values():
        make()
    statistics().save("s.npz")
    nbn.channel_stats(X, channel_axis=2).save("t.npz")
    with open("x.txt", "w") as file:
        file.write("text.\n")
    assert _cli.main(command.split()) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"numba-bn: {text}"), captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("at", [0.01, 0.5, 0.9999])
@pytest.mark.parametrize("cut", [True, False])
def test_damaged_npz_files(save, at, cut, capsys):
    save("x.npz", a=X)
    with open("x.npz", "rb") as file:
        content = bytearray(file.read())
    n = int(at * len(content))
    if cut:
        del content[n:]
    else:
        content[n - 30 : n] = bytes(30)
    with open("x.npz", "wb") as file:
        file.write(content)
    assert _cli.main(["stats", "x.npz"]) == 1
    assert capsys.readouterr().err.startswith("numba-bn: x.npz cannot be read as .npz (")


def cut(name):
    """Let a file lose its end."""
    os.truncate(name, 300)


def folder(name):
    """Make one with nothing in it."""
    Path(name).mkdir()


@pytest.mark.parametrize(
    ("name", "kind", "spoil"),
    [
        ("x.npy", ".npy", cut),
        ("x.npy", ".npy", lambda name: np.save(name, np.array([{}]))),
        ("x.h5", "HDF5", cut),
        ("x.zarr", "zarr", lambda name: Path(name, "zarr.json").write_text("{")),
        ("empty.zarr", "zarr", folder),
        ("folder", "zarr", folder),
    ],
)
def test_errors_of_files_say_of_which(name, kind, spoil, capsys):
    if kind == "zarr":
        pytest.importorskip("zarr")
    if name in MAKE:
        MAKE[name]()
    spoil(name)
    assert _cli.main(["stats", name]) == 1
    assert capsys.readouterr().err.startswith(f"numba-bn: {name} cannot be read as {kind} (")


@pytest.mark.parametrize(
    ("target", "file", "kind"),
    [("y.npy", "y.npy", ".npy"), ("y.h5:/y", "y.h5", "HDF5"), ("y.zarr", "y.zarr", "zarr")],
)
def test_errors_of_targets_say_of_which(target, file, kind, capsys):
    pytest.importorskip("h5py")
    pytest.importorskip("zarr")
    np.save("x.npy", X)
    statistics().save("s.npz")
    command = ["normalize", "x.npy", target, "--stats", "s.npz", "--checkpoint", "job.npz"]
    assert _cli.main(command) == 0
    Path(file, "zarr.json" if kind == "zarr" else "").write_text("{")
    assert _cli.main(command) == 1
    assert capsys.readouterr().err.startswith(f"numba-bn: {file} cannot be read as {kind} (")
    assert os.path.exists(file)


@pytest.mark.parametrize("command", ["stats x.zarr", "normalize x.zarr y.npy --stats s.npz"])
def test_a_damaged_chunk_says_where(command, capsys):
    zarr_array("x.zarr")
    statistics().save("s.npz")
    Path("x.zarr/c/1/0/0").write_bytes(b"damaged")
    assert _cli.main(command.split()) == 1
    place = r"cannot read block \[.*\] of x of shape \(30, 4, 25\), .*x\.zarr \("
    assert re.match(rf"numba-bn: \w+: {place}", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("stats x.h5", "x.h5: channel_stats: x must be an array, got"),
        ("normalize x.h5 y.npy --stats s.npz", "normalize_chunks: source must be an array, got"),
    ],
)
def test_an_array_without_a_shape(command, text, capsys):
    h5py = pytest.importorskip("h5py")
    statistics().save("s.npz")
    with h5py.File("x.h5", "w") as file:
        file["x"] = h5py.Empty("f4")
    assert _cli.main(command.split()) == 1
    assert capsys.readouterr().err == f"numba-bn: {text} HDF5's dataset without a shape\n"


def test_an_encrypted_npz_file(capsys):
    np.savez("x.npz", a=X)
    with open("x.npz", "rb") as file:
        content = bytearray(file.read())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with open("x.npz", "wb") as file:
        file.write(content)
    assert _cli.main(["stats", "x.npz"]) == 1
    assert capsys.readouterr().err.startswith("numba-bn: x.npz cannot be read as .npz (")


@pytest.mark.parametrize(("text", "shown"), [("", "MemoryError"), ("too large", "too large")])
def test_no_memory(text, shown, capsys, monkeypatch):
    def full(*args, **how):
        raise MemoryError(*filter(None, [text]))

    np.save("x.npy", X)
    monkeypatch.setattr("numba_bn.stats.channel_stats", full)
    assert _cli.main(["stats", "x.npy"]) == 1
    assert capsys.readouterr().err == f"numba-bn: {shown}\n"


@pytest.mark.parametrize(("name", "extra"), [("h5py", "hdf5"), ("zarr", "zarr")])
def test_what_is_missing_is_named(name, extra, monkeypatch, capsys):
    MAKE["x.h5" if name == "h5py" else "x.zarr"]()
    monkeypatch.setitem(sys.modules, name, None)
    assert _cli.main(["stats", "x.h5" if name == "h5py" else "x.zarr"]) == 1
    assert (
        f"this needs {name}: python -m pip install 'numba-bn[{extra}]'" in capsys.readouterr().err
    )


def test_no_matplotlib(monkeypatch, capsys):
    np.save("x.npy", X)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("numba_bn.stats.channel_stats", None)
    assert _cli.main(["stats", "x.npy", "--plot", "x.png"]) == 1
    text = "numba-bn: --plot needs matplotlib: python -m pip install 'numba-bn[plot]'\n"
    assert capsys.readouterr() == ("", text)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("-o none/s.npz", "--output must be in a folder that is there, got none/s.npz"),
        ("--plot none/x.png", "--plot must be in a folder that is there, got none/x.png"),
        ("--plot x.txt", "--plot must end in one of ."),
        ("--plot x", "--plot must end in one of ."),
        ("-o folder.png", "--output must be a regular file or a new one, got folder.png"),
        ("--plot folder.png", "--plot must be a regular file or a new one, got folder.png"),
    ],
)
def test_where_results_go_is_checked_first(options, text, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    np.save("x.npy", X)
    Path("folder.png").mkdir()
    monkeypatch.setattr("numba_bn.stats.channel_stats", None)
    assert _cli.main(["stats", "x.npy", *options.split()]) == 1
    assert capsys.readouterr().err.startswith(f"numba-bn: {text}")


def test_statistics_are_saved_where_the_picture_fails(monkeypatch):
    pytest.importorskip("matplotlib")

    def draw(stats):
        raise OSError

    np.save("x.npy", X)
    monkeypatch.setattr(plot, "draw", draw)
    assert _cli.main(["stats", "x.npy", "-o", "s.npz", "--plot", "x.png"]) == 1
    close(nbn.ChannelStats.load("s.npz"))


def test_a_file_cut_short_is_not_read_into_memory(monkeypatch, capsys):
    np.save("x.npy", X)
    cut("x.npy")
    monkeypatch.setattr(np, "fromfile", None)
    assert _cli.main(["stats", "x.npy"]) == 1
    assert capsys.readouterr().err.startswith("numba-bn: x.npy cannot be read as .npy (")


def test_statistics_are_shown_where_they_cannot_be_saved(monkeypatch, capsys):
    def full(*args, **arrays):
        raise OSError(28, "No space left on device")

    np.save("x.npy", X)
    monkeypatch.setattr(np, "savez", full)
    assert _cli.main(["stats", "x.npy", "-o", "s.npz"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 5
    place = re.escape(os.path.realpath("s.npz"))
    text = rf"numba-bn: .*ChannelStats\.save: cannot write {place} \(No space left on device\)\n"
    assert re.fullmatch(text, err)
    assert os.listdir() == ["x.npy"]


@pytest.mark.parametrize("option", ["-o s.npz", "--plot x.png"])
def test_a_folder_that_cannot_be_written_is_seen_first(option, monkeypatch, capsys):
    np.save("x.npy", X)
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (".", os.W_OK))
    monkeypatch.setattr("numba_bn.stats.channel_stats", None)
    assert _cli.main(["stats", "x.npy", *option.split()]) == 1
    assert "must be in a folder that can be written, got" in capsys.readouterr().err
