"""The commands on data, from the shell: what they print, save, and exit with."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import numba_bn as nbn
from numba_bn import _cli
from numba_bn._cli import arrays, plot
from numba_bn.chunks import normalizing

X = np.random.default_rng(0).normal(50.0, 4.0, (30, 4, 25)).astype(np.float32)
STATS = nbn.channel_stats(X)


def zarr_array(path, **how):
    return pytest.importorskip("zarr").create_array(path, data=X, chunks=(7, 4, 25), **how)


def hdf5_file(path, *names):
    with pytest.importorskip("h5py").File(path, "w") as file:
        for name in names:
            file.create_dataset(name, data=X)


def matlab_file(path):
    """HDF5, after 512 bytes of MATLAB's."""
    with pytest.importorskip("h5py").File(path, "w", userblock_size=512) as file:
        file.create_dataset("x", data=X)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")


def zarr_group(path):
    group = pytest.importorskip("zarr").create_group(path)
    group.create_array("a", data=X)
    group.create_array("b", data=X[:1])


MAKE = {
    "x.npy": lambda: np.save("x.npy", X),
    "x.npz": lambda: np.savez("x.npz", X),
    "two.npz:a": lambda: np.savez_compressed("two.npz", a=X, b=X[0]),
    "x.zarr": lambda: zarr_array("x.zarr"),
    "group.zarr:a": lambda: zarr_group("group.zarr"),
    "x.h5": lambda: hdf5_file("x.h5", "x"),
    "two.h5:/a/b": lambda: hdf5_file("two.h5", "a/b", "c"),
    "odd:name.npy": lambda: np.save("odd:name.npy", X),
    "x.raw --dtype float32 --shape 30,4,25": lambda: X.tofile("x.raw"),
    "x.mat": lambda: matlab_file("x.mat"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def close(found, expected=STATS):
    """Tell whether statistics are equal but for rounding."""
    np.testing.assert_array_equal(found.count, expected.count)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-14)
    np.testing.assert_allclose(found.m2, expected.m2, rtol=1e-12)


@pytest.mark.parametrize("name", MAKE)
def test_stats_of_any_file(name, capsys):
    MAKE[name]()
    assert _cli.main(["stats", *name.split(" "), "-o", "stats.npz"]) == 0
    close(nbn.ChannelStats.load("stats.npz"))
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["channel", "count", "mean", "std"]
    rows = [line.split() for line in lines]
    assert [row[:2] for row in rows] == [[str(k), "750"] for k in range(4)]
    np.testing.assert_allclose([float(row[2]) for row in rows], STATS.mean, rtol=1e-8)
    np.testing.assert_allclose([float(row[3]) for row in rows], STATS.std(), rtol=1e-8)


def test_several_sources_are_one_data_set():
    for n in range(3):
        np.save(f"part{n}.npy", X[10 * n : 10 * n + 10])
    assert _cli.main(["stats", "part*.npy", "-o", "all.npz"]) == 0
    close(nbn.ChannelStats.load("all.npz"))
    assert _cli.main(["stats", "part0.npy", "part[12].npy", "-o", "all.npz"]) == 0
    close(nbn.ChannelStats.load("all.npz"))


def test_reproducible_sources_in_any_order():
    for n in range(3):
        np.save(f"part{n}.npy", X[10 * n : 10 * n + 10])
    command = ["part2.npy", "part0.npy", "part1.npy", "--reproducible", "-o", "all.npz"]
    assert _cli.main(["stats", *command]) == 0
    assert nbn.ChannelStats.load("all.npz") == nbn.channel_stats(X, reproducible=True)


def test_merge():
    for n in range(3):
        nbn.channel_stats(X[10 * n : 10 * n + 10]).save(f"part{n}.npz")
    assert _cli.main(["merge", "part*.npz", "-o", "all.npz"]) == 0
    close(nbn.ChannelStats.load("all.npz"))


def test_merging_again_counts_nothing_twice(capsys):
    for n in range(2):
        nbn.channel_stats(X[15 * n : 15 * n + 15]).save(f"stats{n}.npz")
    command = ["merge", "stats*.npz", "-o", "stats_all.npz"]
    assert _cli.main(command) == 0
    assert _cli.main(command) == 1
    text = "numba-bn: --output must not be one of the files read, got stats_all.npz\n"
    assert capsys.readouterr().err == text
    close(nbn.ChannelStats.load("stats_all.npz"))


def test_a_source_is_not_replaced_by_its_statistics():
    np.savez("x.npz", a=X)
    os.symlink("x.npz", "y.npz")
    assert _cli.main(["stats", "x.npz:a", "-o", "y.npz"]) == 1
    with np.load("x.npz") as file:
        assert file.files == ["a"]


@pytest.mark.parametrize("again", ["g1.npy", "./g1.npy", "g?.npy", "link.npy", "hard.npy"])
def test_no_source_counts_twice(again, capsys):
    for n in range(2):
        np.save(f"g{n}.npy", X)
    os.symlink("g1.npy", "link.npy")
    os.link("g1.npy", "hard.npy")
    assert _cli.main(["stats", "g1.npy", again]) == 1
    assert "is given twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("x.npz", "x.npz:arr_0"),
        ("x.h5", "x.h5:/x"),
        ("two.h5:/a/b", "two.h5:link"),
        ("x.zarr", "./x.zarr/"),
        ("group.zarr:a", "group.zarr/a"),
        ("raw", "hard"),
    ],
)
def test_nor_does_one_of_two_names(first, again, capsys):
    made = next((make for name, make in MAKE.items() if name == first), lambda: X.tofile("raw"))
    made()
    if again == "two.h5:link":
        with pytest.importorskip("h5py").File("two.h5", "a") as file:
            file["link"] = file["a/b"]
    raw = ["--dtype", "float32", "--shape", "30,4,25"] if first == "raw" else []
    if raw:
        os.link("raw", "hard")
    assert _cli.main(["stats", first, again, *raw]) == 1
    assert capsys.readouterr().err == f"numba-bn: {again} is given twice, first as {first}\n"


def test_no_statistics_count_twice(capsys):
    STATS.save("a.npz")
    os.link("a.npz", "b.npz")
    assert _cli.main(["merge", "a.npz", "b.npz"]) == 1
    assert capsys.readouterr().err == "numba-bn: b.npz is given twice, first as a.npz\n"


def test_arrays_of_one_file_are_several():
    np.savez("x.npz", a=X[:10], b=X[10:])
    assert _cli.main(["stats", "x.npz:a", "x.npz:b", "-o", "s.npz"]) == 0
    close(nbn.ChannelStats.load("s.npz"))


def test_json_is_for_programs(capsys):
    np.save("x.npy", np.array([[1.0, np.nan], [3.0, 2.0]]))
    assert _cli.main(["stats", "x.npy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "channels": [2],
        "count": [2, 2],
        "mean": [2, None],
        "std": [1, None],
    }
    assert _cli.main(["stats", "x.npy", "--json", "--nan-policy", "omit"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == [2, 1]


@pytest.mark.parametrize("axes", ["-2,-1", "1,-1", "-2,2"])
def test_channel_axes_from_the_end(axes):
    np.save("x.npy", X)
    assert _cli.main(["stats", "x.npy", "--channel-axis", axes, "-o", "s.npz"]) == 0
    assert nbn.ChannelStats.load("s.npz").count.shape == (4, 25)


@pytest.mark.parametrize("option", ["--channel-axis", "--shape"])
@pytest.mark.parametrize("value", ["a", "1,", "1.5"])
def test_integers_that_are_none(option, value, capsys):
    with pytest.raises(SystemExit) as caught:
        _cli.main(["stats", "x.npy", option, value])
    assert caught.value.code == 2
    text = f"error: argument {option}: expected integers, as in 1,-1, got {value!r}\n"
    assert capsys.readouterr().err.endswith(text)


def test_several_channel_axes(capsys):
    np.save("x.npy", X)
    assert _cli.main(["stats", "x.npy", "--channel-axis", "1,-1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 101
    assert lines[26].split()[0] == "1,0"


@pytest.mark.parametrize("checkpoint", [[], ["--checkpoint", "job.npz"]])
@pytest.mark.parametrize("target", ["y.npy", "y.zarr", "y.h5:/a/y"])
@pytest.mark.parametrize("source", ["x.npy", "x.zarr", "x.h5"])
def test_normalize(source, target, checkpoint):
    MAKE[source]()
    pytest.importorskip("h5py")
    pytest.importorskip("zarr")
    STATS.save("stats.npz")
    command = ["normalize", source, target, "--stats", "stats.npz", "--eps", "0.5", *checkpoint]
    assert _cli.main(command) == 0
    with arrays.opened(target) as y:
        expected = nbn.batch_norm(X, mean=STATS.mean, var=STATS.var(), eps=0.5)
        np.testing.assert_array_equal(y[...], expected)
    assert _cli.main(command) == (0 if checkpoint else 1)  # it is there already


def test_the_checkpoint_of_another_job(capsys):
    zarr_array("x.zarr")
    assert _cli.main(["stats", "x.zarr", "-o", "stats.npz", "--checkpoint", "job.npz"]) == 0
    capsys.readouterr()
    command = ["normalize", "x.zarr", "y.npy", "--stats", "stats.npz", "--checkpoint", "job.npz"]
    assert _cli.main(command) == 1
    text = (
        "normalize_chunks: checkpoint job.npz is of another job, with call channel_stats, not "
        "normalize_chunks; remove it to begin anew"
    )
    assert capsys.readouterr() == ("", f"numba-bn: {text}\n")
    assert not os.path.exists("y.npy")


def test_a_file_that_is_no_checkpoint(capsys):
    np.save("x.npy", X)
    STATS.save("stats.npz")
    command = ["normalize", "x.npy", "y.npy", "--stats", "stats.npz", "--checkpoint", "stats.npz"]
    assert _cli.main(command) == 1
    text = "numba-bn: normalize_chunks: stats.npz is not a checkpoint ("
    assert capsys.readouterr().err.startswith(text)


def test_a_target_that_is_gone(capsys):
    np.save("x.npy", X)
    STATS.save("stats.npz")
    command = ["normalize", "x.npy", "y.npy", "--stats", "stats.npz", "--checkpoint", "job.npz"]
    assert _cli.main(command) == 0
    os.unlink("y.npy")
    assert _cli.main(command) == 1
    text = "y.npy is not there, and checkpoint job.npz says it was begun; remove it to begin anew"
    assert capsys.readouterr().err == f"numba-bn: {text}\n"


def test_a_dataset_needs_a_name(capsys):
    np.save("x.npy", X)
    STATS.save("stats.npz")
    assert _cli.main(["normalize", "x.npy", "y.h5", "--stats", "stats.npz"]) == 1
    text = "TARGET must name a dataset, as in y.h5:/name, got y.h5"
    assert capsys.readouterr() == ("", f"numba-bn: {text}\n")
    assert not os.path.exists("y.h5")


@pytest.mark.parametrize("shape", [(3, 4, 25), (0, 4, 25)])
def test_chunks_larger_than_the_array(shape):
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    x = zarr.create_array("x.zarr", shape=shape, dtype="f4", chunks=(7, 4, 30))
    x[...] = X[: shape[0]]
    STATS.save("stats.npz")
    assert _cli.main(["normalize", "x.zarr", "y.h5:/y", "--stats", "stats.npz"]) == 0
    expected = nbn.batch_norm(x[...], mean=STATS.mean, var=STATS.var())
    with h5py.File("y.h5") as file:
        np.testing.assert_array_equal(file["y"], expected)


@pytest.mark.parametrize("checkpoint", [[], ["--checkpoint", "job.npz"]])
@pytest.mark.parametrize("target", ["y.npy", "y.zarr", "y.h5:/a/y"])
def test_a_command_that_failed_can_be_corrected(target, checkpoint):
    pytest.importorskip("h5py")
    pytest.importorskip("zarr")
    np.save("x.npy", X)
    STATS.save("stats.npz")
    command = ["normalize", "x.npy", target, "--stats", "stats.npz", *checkpoint]
    assert _cli.main([*command, "--channel-axis", "0"]) == 1
    assert sorted(os.listdir()) == ["stats.npz", "x.npy"]
    assert _cli.main(command) == 0


def test_shards_stay_shards():
    zarr = pytest.importorskip("zarr")
    zarr_array("x.zarr", shards=(14, 4, 25))
    STATS.save("stats.npz")
    assert _cli.main(["normalize", "x.zarr", "y.zarr", "--stats", "stats.npz"]) == 0
    y = zarr.open_array("y.zarr", mode="r")
    assert (y.chunks, y.shards) == ((7, 4, 25), (14, 4, 25))
    np.testing.assert_array_equal(y[...], nbn.batch_norm(X, mean=STATS.mean, var=STATS.var()))


def test_what_else_is_in_the_file_of_a_failed_command_stays():
    h5py = pytest.importorskip("h5py")
    hdf5_file("x.h5", "x")
    STATS.save("stats.npz")
    command = ["normalize", "x.h5:x", "x.h5:y", "--stats", "stats.npz", "--channel-axis", "0"]
    assert _cli.main(command) == 1
    with h5py.File("x.h5") as file:
        assert list(file) == ["x"]
        np.testing.assert_array_equal(file["x"], X)


def test_what_was_there_before_a_failed_command_stays():
    np.save("x.npy", X)
    np.save("y.npy", X)
    STATS.save("stats.npz")
    assert _cli.main(["normalize", "x.npy", "y.npy", "--stats", "stats.npz"]) == 1
    np.testing.assert_array_equal(np.load("y.npy"), X)


def test_what_a_checkpoint_goes_on_from_stays(monkeypatch):
    np.save("x.npy", X)
    STATS.save("stats.npz")
    command = ["normalize", "x.npy", "y.npy", "--stats", "stats.npz", "--checkpoint", "job.npz"]

    whole = normalizing.normalize_chunks

    def stopped(*args, checkpoint, **how):
        whole(*args, checkpoint=checkpoint, **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(normalizing, "normalize_chunks", stopped)
    assert _cli.main(command) == 130
    np.testing.assert_allclose(np.load("y.npy").mean(), 0, atol=1e-6)


def test_a_picture():
    pytest.importorskip("matplotlib")
    np.save("x.npy", X)
    assert _cli.main(["stats", "x.npy", "--plot", "x.png"]) == 0
    with open("x.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"
    above, *below = plot.draw(STATS).axes
    line, _, _ = above.containers[0]
    np.testing.assert_array_equal(line.get_ydata(), STATS.mean)
    assert [sum(bar.get_height() for bar in axes.patches) for axes in below] == [4, 4]


@pytest.mark.parametrize("values", [[], [np.nan], [1.0] * 9, [1.0, 1 + 2**-52], [0.1] * 99 + [1e9]])
def test_a_picture_of_channels_that_are_alike_or_far_apart(values):
    pytest.importorskip("matplotlib")
    ones = np.ones(len(values))
    _, *below = plot.draw(nbn.ChannelStats(ones, values, np.square(values))).axes
    shown = np.isfinite(values).sum()
    assert [sum(bar.get_height() for bar in axes.patches) for axes in below] == [shown] * 2


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
    STATS.save("s.npz")
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
    STATS.save("s.npz")
    command = ["normalize", "x.npy", target, "--stats", "s.npz", "--checkpoint", "job.npz"]
    assert _cli.main(command) == 0
    Path(file, "zarr.json" if kind == "zarr" else "").write_text("{")
    assert _cli.main(command) == 1
    assert capsys.readouterr().err.startswith(f"numba-bn: {file} cannot be read as {kind} (")
    assert os.path.exists(file)


@pytest.mark.parametrize("command", ["stats x.zarr", "normalize x.zarr y.npy --stats s.npz"])
def test_a_damaged_chunk_says_where(command, capsys):
    zarr_array("x.zarr")
    STATS.save("s.npz")
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
    STATS.save("s.npz")
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


@pytest.mark.parametrize("command", ["x.npy", "x.raw --dtype float32 --shape 0,2"])
def test_empty_files(command, capsys):
    np.save("x.npy", np.empty((0, 2), np.float32))
    Path("x.raw").touch()
    assert _cli.main(["stats", *command.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == [0, 0]


def test_a_file_cut_short_is_not_read_into_memory(monkeypatch, capsys):
    np.save("x.npy", X)
    cut("x.npy")
    monkeypatch.setattr(np, "fromfile", None)
    assert _cli.main(["stats", "x.npy"]) == 1
    assert capsys.readouterr().err.startswith("numba-bn: x.npy cannot be read as .npy (")


def test_raw_values_of_a_dtype_that_numpy_lacks():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    X.astype(bfloat16).tofile("x.raw")
    command = ["x.raw", "--dtype", "bfloat16", "--shape", "30,4,25", "-o", "s.npz"]
    assert _cli.main(["stats", *command]) == 0
    close(nbn.ChannelStats.load("s.npz"), nbn.channel_stats(X.astype(bfloat16)))


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


@pytest.mark.parametrize("command", ["stats", "normalize", "merge"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as caught:
        _cli.main([command, "--help"])
    assert caught.value.code == 0
    assert f"\nexamples:\n  numba-bn {command} " in capsys.readouterr().out


def run(*command, **how):
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "numba_bn", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # where Ctrl-C is ignored, as in a job in the background of a shell, it would be here too
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **how,
    )


def test_from_the_shell_end_to_end():
    np.save("x.npy", X)
    out, err = run("stats", "x.npy", "-o", "s.npz", "--progress", "--checkpoint", "j").communicate()
    assert out.startswith("     channel")
    assert "channel_stats: 100%" in err
    process = run("normalize", "x.npy", "y.npy", "--stats", "s.npz")
    assert process.communicate() == ("", "")
    assert process.returncode == 0
    found = nbn.channel_stats(np.load("y.npy"))
    np.testing.assert_allclose(found.mean, 0, atol=1e-6)
    np.testing.assert_allclose(found.std(), 1, rtol=1e-5)


@pytest.mark.parametrize("axes", ["1", "0,1,2"])  # few lines, and many
def test_what_nobody_reads_to_the_end_is_no_error(axes):
    np.save("x.npy", X)
    with run("stats", "x.npy", "--channel-axis", axes, "-o", "s.npz") as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(60)) == ("", 141)
    assert os.path.exists("s.npz")


def test_ctrl_c_exits_with_130_and_leaves_the_checkpoint():
    large = np.lib.format.open_memmap("x.npy", "w+", "f4", (8000, 4, 100_000))  # zeros: on no disk
    assert large.nbytes > 10e9
    process = run("stats", "x.npy", "--checkpoint", "job.npz")
    while not os.path.exists("job.npz"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "numba-bn: interrupted; the same command goes on from job.npz\n"
    with np.load("job.npz") as file:
        assert file["done"] * 40e6 < large.nbytes
