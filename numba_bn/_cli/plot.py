"""A picture of statistics, by matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np

from numba_bn.stats import ChannelStats


def draw(stats: ChannelStats) -> Any:
    """Return a figure: mean ± standard deviation of each channel, and how those are spread."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "--plot needs matplotlib: python -m pip install 'numba-bn[plot]'"
        ) from error
    mean, std = stats.mean.ravel(), stats.std().ravel()
    figure = Figure(figsize=(8, 6), layout="constrained")
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
