"""However large the data, memory stays small."""

import subprocess
import sys

import numpy as np
import pytest

SHAPE = (150, 32, 125, 250)  # 600 MB in float32
JOB = """
import sys
import numpy as np, numba_bn as nbn
{prepare}
found = {call}
from numba_bn._kernels import _launch
twins = [twin for kernel in _launch.kernels for twin in kernel._twins.values()]
status = open("/proc/self/status").read()
print(sum(sum(twin.stats.cache_misses.values()) for twin in twins))
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""
STATS = {
    "memmap": "x = np.load(sys.argv[1] + '/x.npy', mmap_mode='r')",
    "fortran": "x = np.load(sys.argv[1] + '/f.npy', mmap_mode='r')",
    "hdf5": "import h5py; x = h5py.File(sys.argv[1] + '/x.h5')['x']",
    "one chunk": "import h5py; x = h5py.File(sys.argv[1] + '/x.h5')['one']",
    "zarr": "import zarr; x = zarr.open_array(sys.argv[1] + '/x.zarr', mode='r')",
    "across": "import zarr; x = zarr.open_array(sys.argv[1] + '/across.zarr', mode='r')",
    "with gaps": "x = np.load(sys.argv[1] + '/x.npy', mmap_mode='r')[..., ::20]",
}


def peak(prepare, call, folder):
    """Run it, again if it compiled anything; return the most MB that one that did not had."""
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", JOB.format(prepare=prepare, call=call), folder],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        compiled, most = map(int, done.stdout.split())
        if not compiled:
            break
    return most


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """600 MB in every form, most of them zeros that take no room on the disk."""
    if sys.platform != "linux":
        pytest.skip("other systems do not say how much there was")
    h5py, zarr = pytest.importorskip("h5py"), pytest.importorskip("zarr")
    made = tmp_path_factory.mktemp("large")
    for name, fortran in (("x", False), ("f", True)):
        np.lib.format.open_memmap(made / f"{name}.npy", "w+", "f4", SHAPE, fortran).flush()
    with h5py.File(made / "x.h5", "w") as file:
        chunked = file.create_dataset("x", SHAPE, "f4", chunks=(1, 32, 125, 250), compression=1)
        one = file.create_dataset("one", SHAPE, "f4", chunks=SHAPE)
        chunked[:25] = 1
        one[0, 0] = 1
    array = zarr.create_array(made / "x.zarr", shape=SHAPE, dtype="f4", chunks=(5, 32, 125, 250))
    array[:25] = 1
    zarr.create_array(made / "across.zarr", shape=SHAPE, dtype="f4", chunks=(150, 32, 5, 50))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("kind", STATS)
def test_statistics_take_little(kind, folder):
    assert peak(STATS[kind], "nbn.channel_stats(x)", folder) <= 300


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memmap", "fortran", "across"])
def test_normalizing_takes_little(kind, folder):
    prepare = (
        STATS[kind]
        + """
y = np.lib.format.open_memmap(sys.argv[1] + '/y.npy', 'w+', 'f4', x.shape)
stats = nbn.ChannelStats(*np.ones((3, 32)))"""
    )
    assert peak(prepare, "nbn.normalize_chunks(x, y, stats)", folder) <= 300
