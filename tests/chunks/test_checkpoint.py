"""Jobs that were stopped go on, count nothing twice, and end with the same bits."""

import os

import numpy as np
import pytest
from kept import KINDS, Own, data

import numba_bn as nbn
from numba_bn.chunks import checkpoint as module

pytestmark = pytest.mark.usefixtures("small")

CHUNKS = (2, 3, 9, 5)
NUMBER = 12


@pytest.fixture
def path(tmp_path):
    return tmp_path / "job.npz"


def stats(source, path, every=0.0, **options):
    return nbn.channel_stats(source, checkpoint=path, checkpoint_every=every, **options)


def test_there_are_so_many_blocks():
    source = Own(data(), CHUNKS)
    nbn.channel_stats(source)
    assert len(source.read) == NUMBER


@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("at", [0, 1, 7, NUMBER - 1])
def test_goes_on_where_it_failed_with_the_same_bits(at, reproducible, path):
    x, how = data(), {"reproducible": reproducible}
    with pytest.raises(OSError, match="the disk is gone"):
        stats(Own(x, CHUNKS, fails_at=at), path, every=1e9, **how)
    source = Own(x, CHUNKS)
    assert stats(source, path, **how) == nbn.channel_stats(Own(x, CHUNKS), **how)
    assert len(source.read) == NUMBER - at


@pytest.mark.parametrize("number", [None, 5])
def test_an_error_has_the_number_it_had(number, path):
    class Broken(Own):
        def __getitem__(self, block):
            raise OSError("gone") if number is None else OSError(number, "gone")

    with pytest.raises(OSError, match=r"channel_stats: cannot read block .*gone") as caught:
        stats(Broken(data(), CHUNKS), path)
    assert caught.value.errno == number
    assert "None" not in str(caught.value)


def test_is_not_done_again_when_it_is_done(path):
    first = stats(Own(data(), CHUNKS), path)
    source = Own(data(), CHUNKS)
    assert stats(source, path) == first
    assert source.read == []


def test_goes_on_after_ctrl_c_anywhere(path, monkeypatch):
    x, whole = data(), nbn.channel_stats(Own(data(), CHUNKS))

    class Interrupted(Own):
        def __getitem__(self, block):
            if len(self.read) == 5:
                raise KeyboardInterrupt
            return super().__getitem__(block)

    source = Interrupted(x, CHUNKS)
    with pytest.raises(KeyboardInterrupt):
        stats(source, path, every=1e9)
    source = Own(x, CHUNKS)
    assert stats(source, path) == whole
    assert len(source.read) == NUMBER - 5


@pytest.mark.parametrize("every", [0, 1e9])
def test_is_saved_as_often_as_is_asked(every, path, monkeypatch):
    saved = []
    save = module.Checkpoint.save
    monkeypatch.setattr(
        module.Checkpoint, "save", lambda self, state: saved.append(state.done) or save(self, state)
    )
    stats(Own(data(), CHUNKS), path, every=every)
    assert saved == ([*range(NUMBER + 1), NUMBER] if every == 0 else [0, NUMBER])


@pytest.mark.parametrize(
    ("change", "options", "text"),
    [
        ({"shape": (11, 7, 9, 6)}, {}, r"with shape \[11, 7, 9, 5\], not \[11, 7, 9, 6\]"),
        ({"dtype": "float64"}, {}, "with dtype float32, not float64"),
        ({"chunks": (3, 7, 9, 5)}, {}, "with chunks"),
        ({}, {"channel_axis": 0}, r"with channel_axis \[1\], not \[0\]"),
        ({}, {"reproducible": True}, "with reproducible False, not True"),
        ({}, {"nan_policy": "omit"}, "with nan_policy propagate, not omit"),
        ({}, {"where": np.ones(5, bool)}, "with where None, not "),
    ],
)
def test_a_checkpoint_of_another_job_is_refused(change, options, text, path):
    stats(Own(data(), CHUNKS), path)
    before = path.read_bytes()
    how = {"shape": (11, 7, 9, 5), "dtype": "float32", "chunks": CHUNKS, **change}
    source = Own(data(how["dtype"], how["shape"]), how["chunks"])
    with pytest.raises(ValueError, match=f"^channel_stats: checkpoint .* of another job, {text}"):
        stats(source, path, **options)
    assert source.read == []
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["memmap", "chunked", "zarr"])
def test_so_is_one_of_another_file_of_the_same_shape(kind, path, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    one, other = (KINDS[kind](tmp_path / name, data()) for name in "ab")
    found = stats(one, path)
    assert stats(one, path) == found
    with pytest.raises(ValueError, match=r"of another job, with x .*/a/.*, not .*/b/"):
        stats(other, path)


@pytest.mark.parametrize("kind", ["memmap", "chunked"])
def test_and_one_of_a_file_that_was_written_to_since(kind, path, tmp_path):
    source = KINDS[kind](tmp_path, data())
    if kind == "chunked":  # HDF5, open for reading alone
        name = source.file.filename
        source.file.close()
        source = pytest.importorskip("h5py").File(name)["x"]
    stats(source, path)
    stats(source, path)
    os.utime(source.file.filename if kind == "chunked" else source.filename, (1, 1))
    with pytest.raises(ValueError, match="of another job, with last write"):
        stats(source, path)


def test_and_one_of_a_zip_file_that_was(path, tmp_path):
    zarr = pytest.importorskip("zarr")
    name = tmp_path / "x.zip"
    with zarr.storage.ZipStore(name, mode="w") as store:
        zarr.create_array(store, data=data(), chunks=CHUNKS)
    with zarr.storage.ZipStore(name) as store:
        source = zarr.open_array(store, mode="r")
        found = stats(source, path)
        assert stats(source, path) == found
    os.utime(name, (1, 1))
    with (
        zarr.storage.ZipStore(name) as store,
        pytest.raises(ValueError, match="of another job, with last write"),
    ):
        stats(zarr.open_array(store, mode="r"), path)


@pytest.mark.parametrize("value", [0.0, 5.0])  # chunks of zeros are removed
@pytest.mark.parametrize("kind", ["zarr", "shards"])
def test_and_one_of_zarr_whose_chunks_were(kind, value, path, tmp_path):
    source = KINDS[kind](tmp_path, data())
    stats(source, path)
    source[8:, 6:] = value
    with pytest.raises(ValueError, match="of another job, with last write"):
        stats(source, path)


@pytest.mark.parametrize(
    "options",
    [{"where": [[[True]]]}, {"where": True}, {"where": np.True_}, {"reproducible": np.True_}],
    ids=str,
)
def test_options_of_any_kind_that_a_call_takes(options, path):
    first = stats(Own(data(), CHUNKS), path, **options)
    source = Own(data(), CHUNKS)
    assert stats(source, path, **options) == first
    assert source.read == []


def test_what_a_killed_save_left_is_removed(path):
    left = path.with_name("job.npz.0123456789abcdef.tmp")
    others = [path.with_name(n) for n in ("job.npz.tmp", "other.npz.0123456789abcdef.tmp")]
    for _ in range(2):  # a job that begins, and one that is done
        for file in (left, *others):
            file.touch()
        stats(Own(data(), CHUNKS), path)
        assert sorted(path.parent.iterdir()) == sorted([path, *others])


@pytest.mark.parametrize("content", [b"", b"something else", b"PK\x03\x04 not a zip"])
def test_what_is_not_a_checkpoint_is_refused(content, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^channel_stats: .*job\.npz is not a checkpoint \("):
        stats(Own(data(), CHUNKS), path)
    assert path.read_bytes() == content


def test_statistics_are_no_checkpoint(path):
    nbn.channel_stats(data()).save(path)
    with pytest.raises(ValueError, match="is not a checkpoint"):
        stats(Own(data(), CHUNKS), path)


def test_a_place_that_cannot_be_written_is_an_error_before_anything_is_read(tmp_path):
    source = Own(data(), CHUNKS)
    with pytest.raises(
        FileNotFoundError, match=r"channel_stats: cannot write .*missing/job\.npz \("
    ):
        stats(source, tmp_path / "missing" / "job.npz")
    assert source.read == []


def test_where_the_checkpoint_fails_too_the_first_error_is_told(path, monkeypatch):
    save = module.Checkpoint.save

    def full(self, state):
        if state.done:
            raise OSError(28, "No space left on device")
        save(self, state)

    monkeypatch.setattr(module.Checkpoint, "save", full)
    with pytest.raises(OSError, match="the disk is gone") as caught:
        stats(Own(data(), CHUNKS, fails_at=3), path, every=1e9)
    assert "the checkpoint is an earlier one" in caught.value.__notes__[0]
    assert "No space left" in caught.value.__notes__[0]


def test_digests_differ_as_arrays_do():
    arrays = [None, np.zeros(3), np.zeros(4), np.zeros(3, "f4"), np.array([0.0, 1, 0])]
    arrays += [np.zeros((3, 1)), np.zeros(0), np.broadcast_to(1.0, (5, 5))]
    assert len({module.digest(a) for a in arrays}) == len(arrays)
    assert module.digest(np.arange(3)) == module.digest(np.arange(6)[::2] // 2)
