"""Normalizing that was stopped, or had no room, goes on where it was: nothing is done twice."""

import os
import re
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from kept import SHAPE, Own, data
from written import TARGETS, X, stats_of, whole

import numba_bn as nbn
from numba_bn.chunks import work
from numba_bn.chunks.sources import source_of
from numba_bn.chunks.targets import target_of

pytestmark = pytest.mark.usefixtures("small")


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
