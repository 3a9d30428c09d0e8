"""A picture of statistics, by matplotlib."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from numba_bn._arrays import Array
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
        found = values[np.isfinite(values)]
        axes.hist(found, bins=_bins(found))
        axes.set(xlabel=name, ylabel="channels")
    return figure


def _bins(values: Array) -> int:
    """Return a number of bars, also for values that differ by a rounding, or one by a million."""
    if not values.size:
        return 1
    number = round(2 * np.cbrt(values.size))  # Rice's rule; older NumPy's choice has no bound
    edges = np.linspace(values.min(), values.max(), number + 1)
    return number if (np.diff(edges) > 0).all() else 1


def _figure() -> Any:
    """Return a figure with nothing in it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "--plot needs matplotlib: python -m pip install 'numba-bn[plot]'"
        ) from error
    return Figure(figsize=(8, 6), layout="constrained")
