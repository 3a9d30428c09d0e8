"""Statistics of files, from the command line: what is read, printed, merged and drawn."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from cli_files import MAKE, X, close, statistics

import numba_bn as nbn
from numba_bn import _cli
from numba_bn._cli import plot

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize("name", MAKE)
def test_stats_of_any_file(name, capsys):
    MAKE[name]()
    assert _cli.main(["stats", *name.split(" "), "-o", "stats.npz"]) == 0
    close(nbn.ChannelStats.load("stats.npz"))
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["channel", "count", "mean", "std"]
    rows = [line.split() for line in lines]
    assert [row[:2] for row in rows] == [[str(k), "750"] for k in range(4)]
    np.testing.assert_allclose([float(row[2]) for row in rows], statistics().mean, rtol=1e-8)
    np.testing.assert_allclose([float(row[3]) for row in rows], statistics().std(), rtol=1e-8)


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
    statistics().save("a.npz")
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


def test_a_picture():
    pytest.importorskip("matplotlib")
    np.save("x.npy", X)
    assert _cli.main(["stats", "x.npy", "--plot", "x.png"]) == 0
    with open("x.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"
    above, *below = plot.draw(statistics()).axes
    line, _, _ = above.containers[0]
    np.testing.assert_array_equal(line.get_ydata(), statistics().mean)
    assert [sum(bar.get_height() for bar in axes.patches) for axes in below] == [4, 4]


@pytest.mark.parametrize("values", [[], [np.nan], [1.0] * 9, [1.0, 1 + 2**-52], [0.1] * 99 + [1e9]])
def test_a_picture_of_channels_that_are_alike_or_far_apart(values):
    pytest.importorskip("matplotlib")
    ones = np.ones(len(values))
    _, *below = plot.draw(nbn.ChannelStats(ones, values, np.square(values))).axes
    shown = np.isfinite(values).sum()
    assert [sum(bar.get_height() for bar in axes.patches) for axes in below] == [shown] * 2


@pytest.mark.parametrize("command", ["x.npy", "x.raw --dtype float32 --shape 0,2"])
def test_empty_files(command, capsys):
    np.save("x.npy", np.empty((0, 2), np.float32))
    Path("x.raw").touch()
    assert _cli.main(["stats", *command.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == [0, 0]


def test_raw_values_of_a_dtype_that_numpy_lacks():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    X.astype(bfloat16).tofile("x.raw")
    command = ["x.raw", "--dtype", "bfloat16", "--shape", "30,4,25", "-o", "s.npz"]
    assert _cli.main(["stats", *command]) == 0
    close(nbn.ChannelStats.load("s.npz"), nbn.channel_stats(X.astype(bfloat16)))
