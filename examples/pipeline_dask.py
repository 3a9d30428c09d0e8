"""Find the odd one out of many images with Dask: normalize, compare each with all, rank.

The images are made up where they are needed, block by block, so that a cluster of small machines
could do the same with any number of them. One of them is not like the others.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np
from _data import UserError, require
from numpy.typing import NDArray

import numba_bn as nbn

SIZE = (3, 64, 64)
BLOCK = 128
"""Images in a block: 6 MB."""

LEVELS = np.array([120.0, 90.0, 60.0], np.float32)[:, None, None]
EXAMPLES = """\
examples:
  python pipeline_dask.py                       2000 images, 2 processes
  python pipeline_dask.py --images 200000       10 GB, of which a few blocks exist at a time
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="pipeline_dask.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", type=int, default=2000, metavar="N", help="default: 2000")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    options = parser.parse_args(arguments)
    try:
        if min(options.images, options.workers) < 1:
            raise UserError("--images and --workers must be at least 1")
        require("dask.array")
        distributed = require("distributed")
        cluster = distributed.LocalCluster(
            options.workers, threads_per_worker=1, dashboard_address=None
        )
        with cluster, distributed.Client(cluster):
            run(options.images, options.seed)
    except UserError as error:
        print(f"pipeline_dask.py: {error}", file=sys.stderr)
        return 2
    return 0


def run(count: int, seed: int) -> None:
    """Build the pipeline, compute it in two passes, and print what was found."""
    start = time.perf_counter()
    odd = int(np.random.default_rng(seed).integers(count))
    images = lazy_images(count, odd, seed)
    print(f"{count} images, {images.nbytes / 1e6:.0f} MB in {images.npartitions} blocks")

    stats = nbn.channel_stats(images).compute()
    print("Mean and std of the channels:", stats.mean.round(2), stats.std().round(2))

    normalized = nbn.batch_norm(images, mean=stats.mean, var=stats.var())
    oddness = abs(nbn.layer_norm(normalized.mean(axis=1), axis=(1, 2))).max(axis=(1, 2))
    found = int(oddness.argmax().compute())
    print(f"The odd one out is image {found}; it was {odd}. {time.perf_counter() - start:.1f} s")


def lazy_images(count: int, odd: int, seed: int) -> Any:
    """Return the images as a Dask array, none of which exists yet."""
    da = require("dask.array")
    numbers = da.arange(count, chunks=BLOCK)
    return numbers.map_blocks(
        made, odd, seed, dtype=np.uint8, new_axis=(1, 2, 3), chunks=(numbers.chunks[0], *SIZE)
    )


def made(numbers: NDArray[np.integer], odd: int, seed: int) -> NDArray[np.uint8]:
    """Return images of these numbers: noise around a level per channel; the odd one has a dot."""
    images = np.empty((len(numbers), *SIZE), np.uint8)
    for image, number in zip(images, numbers, strict=True):
        noise = np.random.default_rng([seed, number]).standard_normal(SIZE, np.float32)
        image[...] = LEVELS + 12 * noise
        if number == odd:
            image[:, 20:23, 30:33] += 90
    return images


if __name__ == "__main__":
    sys.exit(main())
