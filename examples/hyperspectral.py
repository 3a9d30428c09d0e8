"""Normalize the bands of a hyperspectral cube that is kept in zarr and need not fit into memory.

The cube, bands × rows × columns, is made up: one scene, seen by each band at a level and with a
contrast of its own.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from _data import UserError, require
from numpy.typing import NDArray

import numba_bn as nbn

BANDS = 64
CHUNK = 256
"""Rows and columns of a chunk, which holds 8 bands: 2 MB."""

EXAMPLES = """\
examples:
  python hyperspectral.py                       64 MB, in a temporary folder
  python hyperspectral.py --megabytes 20000 --folder cube
                                                larger than memory; started again, it goes on
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="hyperspectral.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--megabytes", type=int, default=64, metavar="N", help="default: 64")
    parser.add_argument(
        "--folder", type=Path, metavar="PATH", help="keeps the cubes (default: a temporary folder)"
    )
    options = parser.parse_args(arguments)
    try:
        if options.megabytes < 1:
            raise UserError(f"--megabytes must be at least 1, got {options.megabytes}")
        zarr = require("zarr")
        if options.folder is not None:
            run(zarr, options.folder, options.megabytes)
        else:
            with tempfile.TemporaryDirectory() as folder:
                run(zarr, Path(folder), options.megabytes)
    except (UserError, OSError, ValueError) as error:
        print(f"hyperspectral.py: {error}", file=sys.stderr)
        return 2
    return 0


def run(zarr: Any, folder: Path, megabytes: int) -> None:
    """Make the cube, normalize it, and show what its bands were like before and after."""
    cube = timed("Made", lambda: made(zarr, folder / "cube.zarr", megabytes))
    stats = timed(
        "Statistics",
        lambda: nbn.channel_stats(cube, channel_axis=0, checkpoint=folder / "statistics.npz"),
    )
    flat = opened(zarr, folder / "normalized.zarr", cube.shape)
    timed(
        "Normalized",
        lambda: nbn.normalize_chunks(
            cube, flat, stats, channel_axis=0, eps=0.0, checkpoint=folder / "normalized.npz"
        ),
    )
    after = timed("Checked", lambda: nbn.channel_stats(flat, channel_axis=0))
    print("band      mean       std   normalized mean and std")
    for band in range(0, BANDS, BANDS // 4):
        before = f"{band:4d}{stats.mean[band]:10.2f}{stats.std()[band]:10.2f}"
        print(f"{before}{after.mean[band]:z18.6f}{after.std()[band]:10.6f}")


def timed(what: str, step: Callable[[], Any]) -> Any:
    """Take a step, print how long it took, and return what it gives."""
    start = time.perf_counter()
    result = step()
    print(f"{what:<12}{time.perf_counter() - start:8.2f} s", flush=True)
    return result


def opened(zarr: Any, path: Path, shape: tuple[int, ...]) -> Any:
    """Return the array that is kept there, as far as it was written, or a new one."""
    options = {"shape": shape, "chunks": (8, CHUNK, CHUNK), "dtype": "float32"}
    array = zarr.open_array(path, mode="a", **options)
    if array.shape != shape:
        raise UserError(f"{path}: has the shape {array.shape}, not {shape}")
    return array


def made(zarr: Any, path: Path, megabytes: int) -> Any:
    """Return the cube, written tile by tile if an earlier run has not done so."""
    side = max(1, math.isqrt(megabytes * 10**6 // (4 * BANDS)))
    cube = opened(zarr, path, (BANDS, side, side))
    if not cube.attrs.get("complete"):
        for corner in product(range(0, side, CHUNK), repeat=2):
            tile = tuple(slice(first, min(first + CHUNK, side)) for first in corner)
            cube[:, *tile] = bands_of(tile)
        cube.attrs["complete"] = True
    return cube


def bands_of(tile: tuple[slice, slice]) -> NDArray[np.floating]:
    """Return what the bands see of a tile: hills, and noise of their own."""
    rows, columns = np.ogrid[tile]
    hills = np.sin(rows / 40) * np.cos(columns / 60)
    rng = np.random.default_rng([tile[0].start, tile[1].start])
    noise = rng.standard_normal((BANDS, *hills.shape), np.float32)
    level = 100 * 1.05 ** np.arange(BANDS)[:, None, None]
    return level * (1 + 0.1 * hills + 0.05 * noise)


if __name__ == "__main__":
    sys.exit(main())
