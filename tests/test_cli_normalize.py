"""Files that are normalized, from the command line: what is written, and what stays."""

import os

import numpy as np
import pytest
from cli_files import MAKE, X, hdf5_file, statistics, zarr_array

import numba_bn as nbn
from numba_bn import _cli
from numba_bn._cli import arrays
from numba_bn.chunks import normalizing

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize("checkpoint", [[], ["--checkpoint", "job.npz"]])
@pytest.mark.parametrize("target", ["y.npy", "y.zarr", "y.h5:/a/y"])
@pytest.mark.parametrize("source", ["x.npy", "x.zarr", "x.h5"])
def test_normalize(source, target, checkpoint):
    MAKE[source]()
    pytest.importorskip("h5py")
    pytest.importorskip("zarr")
    statistics().save("stats.npz")
    command = ["normalize", source, target, "--stats", "stats.npz", "--eps", "0.5", *checkpoint]
    assert _cli.main(command) == 0
    with arrays.opened(target) as y:
        expected = nbn.batch_norm(X, mean=statistics().mean, var=statistics().var(), eps=0.5)
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
    statistics().save("stats.npz")
    command = ["normalize", "x.npy", "y.npy", "--stats", "stats.npz", "--checkpoint", "stats.npz"]
    assert _cli.main(command) == 1
    text = "numba-bn: normalize_chunks: stats.npz is not a checkpoint ("
    assert capsys.readouterr().err.startswith(text)


def test_a_target_that_is_gone(capsys):
    np.save("x.npy", X)
    statistics().save("stats.npz")
    command = ["normalize", "x.npy", "y.npy", "--stats", "stats.npz", "--checkpoint", "job.npz"]
    assert _cli.main(command) == 0
    os.unlink("y.npy")
    assert _cli.main(command) == 1
    text = "y.npy is not there, and checkpoint job.npz says it was begun; remove it to begin anew"
    assert capsys.readouterr().err == f"numba-bn: {text}\n"


def test_a_dataset_needs_a_name(capsys):
    np.save("x.npy", X)
    statistics().save("stats.npz")
    assert _cli.main(["normalize", "x.npy", "y.h5", "--stats", "stats.npz"]) == 1
    text = "TARGET must name a dataset, as in y.h5:/name, got y.h5"
    assert capsys.readouterr() == ("", f"numba-bn: {text}\n")
    assert not os.path.exists("y.h5")


@pytest.mark.parametrize("shape", [(3, 4, 25), (0, 4, 25)])
def test_chunks_larger_than_the_array(shape):
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    x = zarr.create_array("x.zarr", shape=shape, dtype="f4", chunks=(7, 4, 30))
    x[...] = X[: shape[0]]
    statistics().save("stats.npz")
    assert _cli.main(["normalize", "x.zarr", "y.h5:/y", "--stats", "stats.npz"]) == 0
    expected = nbn.batch_norm(x[...], mean=statistics().mean, var=statistics().var())
    with h5py.File("y.h5") as file:
        np.testing.assert_array_equal(file["y"], expected)


@pytest.mark.parametrize("checkpoint", [[], ["--checkpoint", "job.npz"]])
@pytest.mark.parametrize("target", ["y.npy", "y.zarr", "y.h5:/a/y"])
def test_a_command_that_failed_can_be_corrected(target, checkpoint):
    pytest.importorskip("h5py")
    pytest.importorskip("zarr")
    np.save("x.npy", X)
    statistics().save("stats.npz")
    command = ["normalize", "x.npy", target, "--stats", "stats.npz", *checkpoint]
    assert _cli.main([*command, "--channel-axis", "0"]) == 1
    assert sorted(os.listdir()) == ["stats.npz", "x.npy"]
    assert _cli.main(command) == 0


def test_shards_stay_shards():
    zarr = pytest.importorskip("zarr")
    zarr_array("x.zarr", shards=(14, 4, 25))
    statistics().save("stats.npz")
    assert _cli.main(["normalize", "x.zarr", "y.zarr", "--stats", "stats.npz"]) == 0
    y = zarr.open_array("y.zarr", mode="r")
    assert (y.chunks, y.shards) == ((7, 4, 25), (14, 4, 25))
    np.testing.assert_array_equal(
        y[...], nbn.batch_norm(X, mean=statistics().mean, var=statistics().var())
    )


def test_what_else_is_in_the_file_of_a_failed_command_stays():
    h5py = pytest.importorskip("h5py")
    hdf5_file("x.h5", "x")
    statistics().save("stats.npz")
    command = ["normalize", "x.h5:x", "x.h5:y", "--stats", "stats.npz", "--channel-axis", "0"]
    assert _cli.main(command) == 1
    with h5py.File("x.h5") as file:
        assert list(file) == ["x"]
        np.testing.assert_array_equal(file["x"], X)


def test_what_was_there_before_a_failed_command_stays():
    np.save("x.npy", X)
    np.save("y.npy", X)
    statistics().save("stats.npz")
    assert _cli.main(["normalize", "x.npy", "y.npy", "--stats", "stats.npz"]) == 1
    np.testing.assert_array_equal(np.load("y.npy"), X)


def test_what_a_checkpoint_goes_on_from_stays(monkeypatch):
    np.save("x.npy", X)
    statistics().save("stats.npz")
    command = ["normalize", "x.npy", "y.npy", "--stats", "stats.npz", "--checkpoint", "job.npz"]

    whole = normalizing.normalize_chunks

    def stopped(*args, checkpoint, **how):
        whole(*args, checkpoint=checkpoint, **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(normalizing, "normalize_chunks", stopped)
    assert _cli.main(command) == 130
    np.testing.assert_allclose(np.load("y.npy").mean(), 0, atol=1e-6)
