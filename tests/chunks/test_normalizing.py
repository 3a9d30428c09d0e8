"""Normalizing in blocks gives what `batch_norm` gives of the whole, wherever it is written."""

import os
import re
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from kept import DTYPES, KINDS, SHAPE, Own, data

import numba_bn as nbn
from numba_bn.chunks import work
from numba_bn.chunks.sources import source_of
from numba_bn.chunks.targets import target_of

pytestmark = pytest.mark.usefixtures("small")


def memmap(path, shape, dtype, **how):
    return np.lib.format.open_memmap(path, "w+", dtype, shape, **how)


def hdf5(path, shape, dtype, **how):
    h5py = pytest.importorskip("h5py")
    return h5py.File(path, "w").create_dataset("y", shape, dtype, **how)


def zarr(path, shape, dtype, **how):
    module = pytest.importorskip("zarr")
    return module.create_array(path, shape=shape, dtype=dtype, **how)


TARGETS = {
    "memmap": lambda folder, *a: memmap(folder / "y.npy", *a),
    "fortran": lambda folder, *a: memmap(folder / "z.npy", *a, fortran_order=True),
    "swapped": lambda folder, s, t: memmap(folder / "w.npy", s, np.dtype(t).newbyteorder()),
    "contiguous": lambda folder, *a: hdf5(folder / "1.h5", *a),
    "compressed": lambda folder, *a: hdf5(folder / "2.h5", *a, chunks=(3, 7, 2, 5), compression=1),
    "zarr": lambda folder, *a: zarr(folder / "y.zarr", *a, chunks=(3, 2, 9, 5)),
    "shards": lambda folder, *a: zarr(
        folder / "s.zarr", *a, chunks=(1, 2, 9, 5), shards=(4, 2, 9, 5)
    ),
    "memory": lambda folder, *a: np.empty(*a),
}


def whole(x, stats, **options):
    return nbn.batch_norm(x, mean=stats.mean, var=stats.var(), **options)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", ["memmap", "fortran", "compressed", "zarr", "own"])
def test_any_source_into_any_target(source, target, tmp_path):
    x, axis = data(), {"channel_axis": (1, 3)}
    stats = nbn.channel_stats(x, **axis)
    parameters = np.random.default_rng(1).normal(size=(2, 7, 5))
    y = TARGETS[target](tmp_path, SHAPE, "f4")
    done = nbn.normalize_chunks(KINDS[source](tmp_path, x), y, stats, *parameters, **axis)
    assert done is y
    gamma, beta = parameters
    np.testing.assert_array_equal(y[...], whole(x, stats, gamma=gamma, beta=beta, **axis))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", ["memmap", "zarr", "compressed"])
def test_any_dtype(dtype, target, tmp_path):
    x = data(dtype)
    stats = nbn.channel_stats(x)
    expected = whole(x, stats, activation="relu", eps=0.5)
    y = TARGETS[target](tmp_path, SHAPE, expected.dtype)
    nbn.normalize_chunks(KINDS["memmap"](tmp_path, x), y, stats, activation="relu", eps=0.5)
    np.testing.assert_array_equal(y[...], expected)


def test_the_file_holds_it_afterwards(tmp_path):
    x = data()
    stats = nbn.channel_stats(x)
    nbn.normalize_chunks(x, TARGETS["memmap"](tmp_path, SHAPE, "f4"), stats)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), whole(x, stats))


def test_compressed_chunks_are_written_whole(tmp_path):
    class Notes(Own):
        def __setitem__(self, block, part):
            written.append(block)
            self.array[block] = part

    written = []
    target = Notes(np.empty((12, 8), np.float32), (4, 2))
    nbn.normalize_chunks(Own(np.ones((12, 8), np.float32), (3, 8)), target, stats_of(8))
    assert [(b[0].start % 4, b[1].start % 2) for b in written] == [(0, 0)] * len(written)
    assert (target.array == 0).all()


def test_an_empty_source(tmp_path):
    y = np.empty((0, 3), np.float32)
    assert nbn.normalize_chunks(np.empty((0, 3), np.float32), y, stats_of(3)) is y


def stats_of(channels):
    return nbn.ChannelStats(np.ones(channels), np.ones(channels), np.ones(channels))


X = np.ones((4, 3), np.float32)


def repeated():
    return np.lib.stride_tricks.as_strided(X[0].copy(), X.shape, (0, 4))


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("target", "stats", "options", "kind", "text"),
    [
        (np.ones((3, 4), "f4"), stats_of(3), {}, ValueError, r"target must have the shape of sou"),
        (np.ones((4, 3)), stats_of(3), {}, TypeError, "target must have dtype float32, got float6"),
        ((1, 2), stats_of(3), {}, TypeError, "target must be an array that is open .* got tuple"),
        ([[0.0]], stats_of(3), {}, TypeError, "target must be an array that is open .* got list"),
        (read_only(X.copy()), stats_of(3), {}, ValueError, "target must be open for writing"),
        (X, stats_of(3), {}, ValueError, "target must not be source"),
        (X[:, ::-1], stats_of(3), {}, ValueError, "target must not be source"),
        (repeated(), stats_of(3), {}, ValueError, r"target must not repeat memory, got strides"),
        (X.copy(), stats_of(4), {}, ValueError, r"stats.mean must have shape \(3,\), got \(4,\)"),
        (X.copy(), np.ones(3), {}, TypeError, "stats must be a ChannelStats, got ndarray"),
        (X.copy(), stats_of(3), {"gamma": [1.0]}, ValueError, "gamma must have shape"),
        (X.copy(), stats_of(3), {"eps": -1}, ValueError, "eps must be finite and >= 0"),
        (X.copy(), stats_of(3), {"activation": "elu"}, ValueError, "activation must be None or"),
        (X.copy(), stats_of(3), {"channel_axis": 2}, np.exceptions.AxisError, "channel_axis must"),
        (X.copy(), nbn.ChannelStats(*np.zeros((3, 3))), {}, ValueError, "stats must have counted"),
    ],
)
def test_wrong_arguments(target, stats, options, kind, text):
    before = np.copy(target)
    with pytest.raises(kind, match=f"^normalize_chunks: {text}"):
        nbn.normalize_chunks(X, target, stats, **options)
    np.testing.assert_array_equal(target, before)


def test_targets_that_would_not_keep_it(tmp_path):
    h5py, module = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    TARGETS["contiguous"](tmp_path, X.shape, "f4").file.close()
    TARGETS["memmap"](tmp_path, X.shape, "f4")
    module.create_array(tmp_path / "y.zarr", shape=X.shape, dtype="f4")
    refused = [
        h5py.File(tmp_path / "1.h5")["y"],
        np.load(tmp_path / "y.npy", mmap_mode="c"),
        np.load(tmp_path / "y.npy", mmap_mode="r"),
        module.open_array(tmp_path / "y.zarr", mode="r"),
    ]
    for target in refused:
        with pytest.raises(ValueError, match=r"^normalize_chunks: target must be open for writing"):
            nbn.normalize_chunks(X, target, stats_of(3))


def test_one_file_opened_twice_is_seen(tmp_path):
    y = TARGETS["memmap"](tmp_path, X.shape, "f4")
    with pytest.raises(ValueError, match="target must not be source"):
        nbn.normalize_chunks(np.load(tmp_path / "y.npy", mmap_mode="r"), y, stats_of(3))


def zarr_by_two_paths(folder):
    y = TARGETS["zarr"](folder, X4.shape, "f4")
    return pytest.importorskip("zarr").open_array("y.zarr", mode="r"), y


def zarr_by_a_link(folder):
    TARGETS["zarr"](folder, X4.shape, "f4")
    (folder / "link.zarr").symlink_to(folder / "y.zarr")
    open_array = pytest.importorskip("zarr").open_array
    return [open_array(folder / f"{name}.zarr", mode="r+") for name in ("y", "link")]


def maps_by_two_names(folder):
    y = TARGETS["memmap"](folder, X4.shape, "f4")
    os.link(folder / "y.npy", folder / "hard.npy")
    return np.load(folder / "hard.npy", mmap_mode="r"), y


def maps_that_overlap(folder):
    y = TARGETS["memmap"](folder, (4, 3), "f4")
    return np.load(folder / "y.npy", mmap_mode="r")[:2], y[1:3]


def hdf5_by_two_names(folder):
    y = TARGETS["contiguous"](folder, X4.shape, "f4")
    y.file["other"] = y
    return y.file["other"], y


X4 = np.ones((4, 3, 9, 5), np.float32)


@pytest.mark.parametrize(
    "pair",
    [
        zarr_by_two_paths,
        zarr_by_a_link,
        maps_by_two_names,
        maps_that_overlap,
        hdf5_by_two_names,
    ],
)
def test_one_array_by_two_names_is_seen(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, target = pair(tmp_path)
    with pytest.raises(ValueError, match="target must not be source"):
        nbn.normalize_chunks(source, target, stats_of(3))


def test_parts_of_one_file_that_share_nothing_are_two_arrays(tmp_path):
    TARGETS["memmap"](tmp_path, X.shape, "f4")[:] = np.arange(12.0).reshape(4, 3)
    source, target = (np.load(tmp_path / "y.npy", mmap_mode=mode) for mode in ("r", "r+"))
    nbn.normalize_chunks(source[:2], target[2:], stats_of(3))
    np.testing.assert_array_equal(target[2:], whole(np.load(tmp_path / "y.npy")[:2], stats_of(3)))


# ---- stopped, and gone on with ----


def test_goes_on_from_another_folder(tmp_path, monkeypatch):
    module = pytest.importorskip("zarr")
    x, how = data(), {"checkpoint": tmp_path / "job.npz"}
    stats, y = nbn.channel_stats(x), TARGETS["zarr"](tmp_path, SHAPE, "f4")
    monkeypatch.chdir(tmp_path)
    nbn.normalize_chunks(x, module.open_array("y.zarr", mode="r+"), stats, **how)
    monkeypatch.chdir("/")
    assert nbn.normalize_chunks(x, y, stats, **how) is y


def test_a_target_that_rounds_goes_without_a_checkpoint(tmp_path):
    class Rounding(Own):
        def __setitem__(self, block, part):
            self.array[block] = part.round(1)

    x, path = data(), tmp_path / "job.npz"
    stats, y = nbn.channel_stats(x), Rounding(np.empty_like(x), (2, 7, 9, 5))
    nbn.normalize_chunks(x, y, stats, checkpoint=path)
    with pytest.raises(ValueError, match="if it rounds what is written, as lossy filters do, it g"):
        nbn.normalize_chunks(x, y, stats, checkpoint=path)
    path.unlink()
    np.testing.assert_array_equal(nbn.normalize_chunks(x, y, stats).array, whole(x, stats).round(1))


@pytest.mark.parametrize("target", ["memmap", "compressed", "zarr"])
@pytest.mark.parametrize("at", [0, 1, 5])
def test_goes_on_where_it_failed(target, at, tmp_path):
    x, path = data(), tmp_path / "job.npz"
    stats, y = nbn.channel_stats(x), TARGETS[target](tmp_path, SHAPE, "f4")
    with pytest.raises(OSError, match="the disk is gone"):
        nbn.normalize_chunks(Own(x, (2, 7, 9, 5), fails_at=at), y, stats, checkpoint=path)
    source = Own(x, (2, 7, 9, 5))
    nbn.normalize_chunks(source, y, stats, checkpoint=path)
    np.testing.assert_array_equal(y[...], whole(x, stats))
    again = Own(x, (2, 7, 9, 5))
    nbn.normalize_chunks(again, y, stats, checkpoint=path)
    assert len(again.read) == 3  # the first, middle and last, to see whether they are there
    assert not at or len(source.read) <= len(again.array) - at + 1


def test_a_target_made_anew_is_not_taken_for_the_old_one(tmp_path):
    x, path = data(), tmp_path / "job.npz"
    stats = nbn.channel_stats(x)
    y = TARGETS["memmap"](tmp_path, SHAPE, "f4")
    nbn.normalize_chunks(x, y, stats, checkpoint=path)
    y = TARGETS["memmap"](tmp_path, SHAPE, "f4")
    with pytest.raises(ValueError, match="target does not hold what checkpoint says"):
        nbn.normalize_chunks(x, y, stats, checkpoint=path)


@pytest.mark.parametrize("zero", [0, -1])
def test_nor_is_one_of_zeros_where_some_are_written(zero, tmp_path):
    x, path = data(), tmp_path / "job.npz"
    stats = nbn.channel_stats(x)
    x[zero] = -1e6
    how = {"activation": "relu", "checkpoint": path}
    nbn.normalize_chunks(Own(x, (1, 7, 9, 5)), Own(np.zeros_like(x), None), stats, **how)
    with pytest.raises(ValueError, match="target does not hold what checkpoint says"):
        nbn.normalize_chunks(Own(x, (1, 7, 9, 5)), Own(np.zeros_like(x), None), stats, **how)


def test_nor_one_in_other_chunks(tmp_path):
    x = data()
    stats, how = nbn.channel_stats(x), {"checkpoint": tmp_path / "job.npz"}
    nbn.normalize_chunks(Own(x, None), Own(np.zeros_like(x), (1, 7, 9, 5)), stats, **how)
    with pytest.raises(ValueError, match="is of another job, with chunks with target's"):
        nbn.normalize_chunks(Own(x, None), Own(np.zeros_like(x), (2, 7, 9, 5)), stats, **how)


@pytest.mark.parametrize("change", ["stats", "gamma", "eps", "target"])
def test_a_checkpoint_of_another_job_is_refused(change, tmp_path):
    x, path = data(), tmp_path / "job.npz"
    y = TARGETS["memmap"](tmp_path, SHAPE, "f4")
    stats, options = nbn.channel_stats(x), {}
    nbn.normalize_chunks(x, y, stats, checkpoint=path)
    if change == "target":
        y = TARGETS["fortran"](tmp_path, SHAPE, "f4")
    elif change == "stats":
        stats = stats + stats_of(7)
    else:
        options = {change: 2.0 * np.ones(7) if change == "gamma" else 0.1}
    with pytest.raises(ValueError, match=r"^normalize_chunks: checkpoint .* is of another job"):
        nbn.normalize_chunks(x, y, stats, checkpoint=path, **options)


def test_what_a_checkpoint_says_was_flushed_before(tmp_path, monkeypatch):
    events = []
    x, y = data(), TARGETS["memmap"](tmp_path, SHAPE, "f4")
    kind = type(target_of("", y, source_of("", "", x)))
    settle, save = kind.settle, work.Checkpoint.save
    monkeypatch.setattr(kind, "settle", lambda self: events.append("flush") or settle(self))
    monkeypatch.setattr(
        work.Checkpoint, "save", lambda self, state: events.append(state.done) or save(self, state)
    )
    how = {"checkpoint": tmp_path / "job.npz", "checkpoint_every": 0}
    nbn.normalize_chunks(x, y, nbn.channel_stats(x), **how)
    assert events[:5] == [0, "flush", 1, "flush", 2]


# ---- a full disk ----


def test_a_target_that_fails_without_a_number(tmp_path):
    class Broken(Own):
        def __setitem__(self, block, part):
            raise OSError("gone")

    with pytest.raises(OSError, match=r"^normalize_chunks: cannot write to target \(gone\)"):
        nbn.normalize_chunks(X, Broken(X.copy(), None), stats_of(3))


def test_a_disk_too_small_is_an_error_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    y = TARGETS["memmap"](tmp_path, SHAPE, "f4")
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(
        OSError, match=r"normalize_chunks: cannot write to target .*y\.npy, .*No space"
    ):
        nbn.normalize_chunks(data(), y, stats_of(7), checkpoint=tmp_path / "job.npz")
    assert not (tmp_path / "job.npz").exists()
    assert not y.any()


FULL = """
    import sys
    import numpy as np, numba_bn as nbn, {module}
    from numba_bn.chunks.sources import Source
    Source.limit = 1 << 18
    x = np.random.default_rng(0).normal(5.0, 2.0, (4000, 3, 100)).astype(np.float32)
    stats, folder, checkpoint = nbn.channel_stats(x), sys.argv[1], sys.argv[2]
    {code}
    nbn.normalize_chunks(x, y, stats, checkpoint=checkpoint, checkpoint_every=0)
    assert np.array_equal(y[...], nbn.batch_norm(x, mean=stats.mean, var=stats.var()))
    print("done")
"""
ON = {
    "memmap": ("os", "y = np.lib.format.open_memmap(folder + '/y.npy', {npy!r}, 'f4', x.shape)"),
    "sparse": (
        "os",
        "del os.posix_fallocate; "
        "y = np.lib.format.open_memmap(folder + '/y.npy', {npy!r}, 'f4', x.shape)",
    ),
    "hdf5": ("h5py", "y = h5py.File(folder + '/y.h5', {h5!r}).require_dataset('y', x.shape, 'f4')"),
    "zarr": (
        "zarr",
        "y = zarr.create_array(folder + '/y.zarr', shape=x.shape, dtype='f4', chunks=(500, 3, 100))"
        " if {h5!r} == 'w' else zarr.open_array(folder + '/y.zarr', mode='r+')",
    ),
}


def on_a_disk_of_3_mb(kind, folder):
    """Run it where there is too little room, and then again where there is more."""
    module, code = ON[kind]
    disk, job = folder / "disk", folder / "job.npz"
    disk.mkdir()
    lines = [f"mount -t tmpfs -o size=3m none {disk} || exit 77"]
    for npy, h5 in (("w+", "w"), ("r+", "a")):
        script = folder / f"{h5}.py"
        filled = code.format(npy=npy, h5=h5)
        script.write_text(textwrap.dedent(FULL).format(module=module, code=filled))
        lines.append(f"{sys.executable} -W error {script} {disk} {job}")
        lines.append(f"echo == $? >&2; mount -o remount,size=64m {disk}")
    command = ["unshare", "-rm", "bash", "-c", "\n".join(lines)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ON)
def test_a_full_disk_is_an_error_after_which_it_goes_on_where_there_is_room(kind, tmp_path):
    pytest.importorskip(ON[kind][0])
    if shutil.which("unshare") is None:
        pytest.skip("no small disk can be made here")
    done = on_a_disk_of_3_mb(kind, tmp_path)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("no small disk can be made here")
    first, second, _ = done.stderr.split("== ")
    assert second.startswith("1\n"), first
    assert re.search(rf"^OSError: .*normalize_chunks: .*{tmp_path}/disk/y\.", first, re.M)
    assert (done.stdout, done.stderr[-2:]) == ("done\n", "0\n"), done.stderr
