"""Train a small network on handwritten digits by several processes, each with a part of the batch.

Batch norm takes the statistics of the whole batch, so that the result is that of one process, up
to rounding, and the same on all ranks, to the last bit.
"""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from pathlib import Path
from typing import Any

# read by NumPy on import: matrices this small are slower with threads than without
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from _data import Samples, UserError, load_dataset, require
from _network import Adam, Network, Weighted, build_network, cross_entropy
from _training import batches, evaluate

EXAMPLES = """\
examples:
  mpirun --oversubscribe --bind-to none -n 4 python -m mpi4py training_mpi.py
  python training_mpi.py                        one process
  (-m mpi4py: an error on one rank ends all of them)
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command on one rank, and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="training_mpi.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--epochs", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--data", type=Path, metavar="NPZ", help="as for digits.py (default: scikit-learn's digits)"
    )
    options = parser.parse_args(arguments)
    try:
        train(require("mpi4py.MPI"), options.data, options.epochs, options.seed)
    except UserError as error:
        print(f"training_mpi.py: {error}", file=sys.stderr)
        return 2
    return 0


def train(mpi: Any, path: Path | None, epochs: int, seed: int) -> None:
    """Train, test on the first rank, and print whether all ranks have the same."""
    comm = mpi.COMM_WORLD
    # the same streams on all ranks: the same split, the same first weights, the same batches
    split, weights, order = np.random.default_rng(seed).spawn(3)
    data = load_dataset(path, split)
    network = build_network("mlp", data.image_size, data.classes, weights, comm=comm)
    optimizer = Adam(network)
    for number in range(1, epochs + 1):
        loss = 0.0
        for batch in batches(order.permutation(len(data.train.labels))):
            loss += step(mpi, comm, network, optimizer, data.train, batch)
        if comm.rank == 0:  # alone: normalizing by the running statistics needs no others
            accuracy = evaluate(network, data.val)[1]
            mean = loss / len(data.train.labels)
            print(f"Epoch {number}, Train Loss: {mean:.4f}, Val Accuracy: {accuracy:.2%}")
    sums = comm.allgather((checksum(network), comm.rank))
    if comm.rank == 0:
        print(f"Test accuracy {evaluate(network, data.test)[1]:.2%}")
        differing = [rank for found, rank in sums if found != sums[0][0]]
        told = f"ranks {differing} differ" if differing else f"the same on all {comm.size} ranks"
        print(f"Parameters and running statistics: checksum {sums[0][0]}, {told}")


def step(
    mpi: Any, comm: Any, network: Network, optimizer: Adam, samples: Samples, batch: Any
) -> float:
    """Take one step by this rank's part of the batch; return the sum of all losses."""
    own = np.array_split(batch, comm.size)[comm.rank]
    logits = network.train()(samples.images[own])
    loss, gradient = cross_entropy(logits, samples.labels[own])
    network.backward(gradient * np.float32(len(own) / len(batch)))  # of the whole batch's mean
    for layer in network.layers:
        if isinstance(layer, Weighted):  # the norm's gradients are sums over all ranks already
            for own_gradient in (layer.dweight, layer.dbias):
                if own_gradient is not None:
                    comm.Allreduce(mpi.IN_PLACE, own_gradient)
    optimizer.step()
    return float(comm.allreduce(loss * len(own)))


def checksum(network: Network) -> str:
    """Return a text that tells apart networks that differ in a bit."""
    arrays = [parameter for parameter, _ in network.parameters()]
    for layer in network.layers:
        arrays += getattr(layer, "state_dict", dict)().values()
    return f"{zlib.crc32(b''.join(array.tobytes() for array in arrays)):08x}"


if __name__ == "__main__":
    sys.exit(main())
