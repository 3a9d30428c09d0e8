"""A picture of statistics, by matplotlib."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from numba_bn.stats import ChannelStats


def check(path: str) -> None:
    """Raise unless a picture can be drawn, of the kind that its name says."""
    known = sorted(f".{kind}" for kind in _figure().canvas.get_supported_filetypes())
    if os.path.splitext(path)[1].lower() not in known:
        raise ValueError(f"--plot must end in one of {', '.join(known)}, got {path}")


def draw(stats: ChannelStats) -> Any:
    """Return a figure: mean ± standard deviation of each channel, and how those are spread."""
    mean, std = stats.mean.ravel(), stats.std().ravel()
    figure = _figure()
    above, left, right = (
        figure.add_subplot(2, 1, 1),
        figure.add_subplot(2, 2, 3),
        figure.add_subplot(2, 2, 4),
    )
    above.errorbar(np.arange(mean.size), mean, std, fmt=".", capsize=2)
    above.set(xlabel="channel", ylabel="mean ± standard deviation")
    for axes, values, name in ((left, mean, "mean"), (right, std, "standard deviation")):
        axes.hist(values[np.isfinite(values)], bins="auto")
        axes.set(xlabel=name, ylabel="channels")
    return figure


def _figure() -> Any:
    """Return a figure with nothing in it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "--plot needs matplotlib: python -m pip install 'numba-bn[plot]'"
        ) from error
    return Figure(figsize=(8, 6), layout="constrained")
