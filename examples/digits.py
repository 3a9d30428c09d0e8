"""Train a small network on handwritten digits, in NumPy, with numba_bn's batch norm.

Linear → BatchNorm → ReLU → Linear, or with --model cnn
Conv → BatchNorm2d → ReLU → Pool → Linear.
"""

from __future__ import annotations

import argparse
import os
import sys
from itertools import product
from pathlib import Path

# read by NumPy on import: matrices this small are slower with threads than without
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from _data import Dataset, UserError, load_dataset, require
from _network import Network, build_network
from _training import (
    EarlyStopping,
    Epoch,
    evaluate,
    predict,
    train,
    with_exact_statistics,
    with_folded_norm,
)

EPOCHS = 100
COMPARED_EPOCHS = 20
LEARNING_RATES = (1e-3, 1e-2, 1e-1)
EXAMPLES = """\
examples:
  python digits.py                              scikit-learn's digits
  python digits.py --model cnn                  the same with a convolution
  python digits.py --compare                    with and without the norm, curves as a PNG
  python digits.py --data mnist.npz --epochs 5  MNIST as Keras keeps it
  python digits.py --data mnist/                MNIST's four IDX files, gzip'ed or not
"""

Curves = dict[tuple[float, bool], list[Epoch]]
"""Epochs by learning rate and whether with the norm."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    options = command_line().parse_args(arguments)
    try:
        data = load_dataset(options.data, random_streams(options.seed)[0])
        sizes = "{} training, {} validation, {} test".format(*(len(p.labels) for p in data))
        print(f"{sizes} images of {'×'.join(map(str, data.image_size))} pixels", flush=True)
        if options.compare:
            epochs = options.epochs or COMPARED_EPOCHS
            compare(data, options.model, options.seed, epochs, options.output)
        else:
            train_and_test(data, options.model, options.seed, options.epochs or EPOCHS)
    except UserError as error:
        print(f"digits.py: {error}", file=sys.stderr)
        return 2
    return 0


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="digits.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", choices=("mlp", "cnn"), default="mlp", help="default: mlp")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="an .npz file with x_train, y_train, x_test, y_test or images, labels; or a folder "
        "of MNIST's IDX files (default: scikit-learn's digits)",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="train with and without the norm at three learning rates, and plot the curves",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("digits.png"),
        metavar="PNG",
        help="the plot of --compare (default: digits.png)",
    )
    parser.add_argument(
        "--epochs",
        type=positive_int,
        metavar="N",
        help=f"at most so many (default: {EPOCHS}), "
        f"with --compare exactly so many (default: {COMPARED_EPOCHS})",
    )
    parser.add_argument("--seed", type=natural_int, default=0, metavar="N", help="default: 0")
    return parser


def natural_int(text: str) -> int:
    """Read an integer of at least 0."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def positive_int(text: str) -> int:
    """Read an integer of at least 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def random_streams(seed: int) -> list[np.random.Generator]:
    """Return independent generators: for the split, the first weights, and the batches."""
    return np.random.default_rng(seed).spawn(3)


def new_network(data: Dataset, model: str, seed: int, norm: bool = True) -> Network:
    """Return an untrained network for the data."""
    rng = random_streams(seed)[1]
    return build_network(model, data.image_size, data.classes, rng, norm=norm)


def train_and_test(data: Dataset, model: str, seed: int, epochs: int) -> None:
    """Train with early stopping, then test in the three ways of normalizing at test time."""
    network = new_network(data, model, seed)
    stopping = EarlyStopping(network)
    for epoch in train(network, data, random_streams(seed)[2], epochs=epochs):
        print(
            f"Epoch {epoch.number}, Train Loss: {epoch.train_loss:.4f}, "
            f"Val Loss: {epoch.val_loss:.4f}",
            flush=True,
        )
        if stopping.update(epoch, network):
            break
    print(f"Best: epoch {stopping.best_epoch}, Val Loss: {stopping.best_loss:.4f}")
    report(stopping.best, data)


def report(network: Network, data: Dataset) -> None:
    """Print the test accuracy of the network, with exact statistics, and with the norm folded."""
    folded = with_folded_norm(network)
    ways = {
        "running statistics of training": network,
        "exact statistics of the training set": with_exact_statistics(network, data.train.images),
        "norm folded into the layer before": folded,
    }
    print("Test accuracy")
    for way, tested in ways.items():
        print(f"  {way:<37} {evaluate(tested, data.test)[1]:.2%}")
    logits, folded_logits = predict(network, data.test.images), predict(folded, data.test.images)
    same = np.sum(logits.argmax(axis=1) == folded_logits.argmax(axis=1))
    print(
        f"Folded, same predictions: {same} of {len(logits)}; "
        f"logits differ by {np.abs(logits - folded_logits).max():.1e} at most"
    )


def compare(data: Dataset, model: str, seed: int, epochs: int, output: Path) -> None:
    """Train with and without the norm at each learning rate, and save the curves."""
    require("matplotlib")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: no such folder")
    curves: Curves = {}
    for learning_rate, norm in product(LEARNING_RATES, (True, False)):
        network = new_network(data, model, seed, norm)
        rng = random_streams(seed)[2]
        training = train(network, data, rng, epochs=epochs, learning_rate=learning_rate)
        curves[learning_rate, norm] = list(training)
        last = curves[learning_rate, norm][-1]
        print(
            f"Learning rate {learning_rate:g}, {'with' if norm else 'without'} norm, "
            f"Val Loss: {last.val_loss:.4f}, Val Accuracy: {last.val_accuracy:.2%}",
            flush=True,
        )
    plot(curves, output)
    print(f"Saved {output}")


def plot(curves: Curves, output: Path) -> None:
    """Save validation loss and accuracy over the epochs, a column per learning rate."""
    figure = require("matplotlib.figure").Figure(figsize=(10, 5.6), layout="constrained")
    axes = figure.subplots(2, len(LEARNING_RATES), sharex=True, sharey="row")
    styles = {True: ("with batch norm", "C0", ".-"), False: ("without", "C1", ".--")}
    for (learning_rate, norm), epochs in curves.items():
        loss, accuracy = axes[:, LEARNING_RATES.index(learning_rate)]
        label, color, line = styles[norm]
        numbers = [epoch.number for epoch in epochs]
        losses = [epoch.val_loss for epoch in epochs]
        accuracies = [100 * epoch.val_accuracy for epoch in epochs]
        loss.semilogy(numbers, losses, line, color=color, label=label)
        accuracy.plot(numbers, accuracies, line, color=color)
        loss.set_title(f"learning rate {learning_rate:g}")
        accuracy.set_xlabel("epoch")
        accuracy.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set_ylabel("validation loss")
    axes[1, 0].set_ylabel("validation accuracy in %")
    axes[0, 0].legend()
    for ax in axes.flat:
        ax.grid(alpha=0.3)
    try:
        figure.savefig(output, format="png", dpi=150)
    except OSError as error:
        raise UserError(f"--output {output}: {error.strerror or error}") from error


if __name__ == "__main__":
    sys.exit(main())
