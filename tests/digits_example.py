"""Tiny data for the tests of `examples/digits.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

EXAMPLES = Path(__file__).parents[1] / "examples"

CLASSES = 3
SIZE = (7, 6)
"""Odd, so that the pool leaves a row out."""


def blobs(rng: np.random.Generator, n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images, uint8, with a bright column per class, and their labels."""
    labels = np.arange(n) % CLASSES
    images = rng.integers(0, 100, (n, *SIZE))
    images[np.arange(n), :, labels] += 100
    return images.astype(np.uint8), labels


def save_blobs(folder: Path, rng: np.random.Generator) -> Path:
    """Return an .npz file of 150 such images."""
    images, labels = blobs(rng)
    path = folder / "blobs.npz"
    np.savez(path, images=images, labels=labels)
    return path
