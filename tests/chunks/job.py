"""A job in a process of its own, slow enough to be stopped: ``job.py stats|normalize FOLDER``.

Says ``begun``, and at the end how many blocks it read.
"""

import sys
import time
from pathlib import Path

import numpy as np

import numba_bn as nbn
from numba_bn.chunks.sources import Mapped, Source

BLOCKS = 200
SHAPE = (BLOCKS, 5, 100)


def main(what, folder):
    """Run it, with what was done in ``job.npz``."""
    Source.limit = Mapped.limit = 5 * 100 * 4
    reads, read = [], Mapped.read

    def slow(self, block):
        time.sleep(0.002)
        reads.append(block)
        return read(self, block)

    Mapped.read = slow
    x = np.load(folder / "x.npy", mmap_mode="r")
    how = {"checkpoint": folder / "job.npz", "checkpoint_every": 0.02}
    first = nbn.channel_stats(x[:1])  # what is slow about the first calls
    nbn.batch_norm(x[:1], mean=first.mean, var=first.var())
    print("begun", flush=True)
    if what == "stats":
        nbn.channel_stats(x, **how).save(folder / "stats.npz")
    else:
        y = np.load(folder / "y.npy", mmap_mode="r+")
        nbn.normalize_chunks(x, y, nbn.ChannelStats.load(folder / "given.npz"), **how)
    print(len(reads), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
