"""Batch normalization and its family for plain arrays.

Names load on first use, so that importing this package imports neither Numba nor CUDA.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from numba_bn import _limits

if TYPE_CHECKING:
    from numba_bn._threads import get_num_threads, set_num_threads, threads
    from numba_bn._warmup import warmup
    from numba_bn.chunks.normalizing import normalize_chunks
    from numba_bn.folding import fold_batch_norm
    from numba_bn.functional import (
        Gradients,
        batch_norm,
        batch_norm_backward,
        batch_norm_train,
        group_norm,
        group_norm_backward,
        instance_norm,
        instance_norm_backward,
        layer_norm,
        layer_norm_backward,
        rms_norm,
        rms_norm_backward,
    )
    from numba_bn.layers import BatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d
    from numba_bn.stats import ChannelStats, RunningStats, channel_stats

__version__ = "0.1.0"

_HOMES = {
    "numba_bn.functional": (
        "Gradients",
        "batch_norm",
        "batch_norm_backward",
        "batch_norm_train",
        "group_norm",
        "group_norm_backward",
        "instance_norm",
        "instance_norm_backward",
        "layer_norm",
        "layer_norm_backward",
        "rms_norm",
        "rms_norm_backward",
    ),
    "numba_bn.stats": ("ChannelStats", "RunningStats", "channel_stats"),
    "numba_bn.chunks.normalizing": ("normalize_chunks",),
    "numba_bn.layers": ("BatchNorm", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d"),
    "numba_bn.folding": ("fold_batch_norm",),
    "numba_bn._threads": ("get_num_threads", "set_num_threads", "threads"),
    "numba_bn._warmup": ("warmup",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BatchNorm",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "ChannelStats",
    "Gradients",
    "RunningStats",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_train",
    "channel_stats",
    "fold_batch_norm",
    "get_num_threads",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "normalize_chunks",
    "rms_norm",
    "rms_norm_backward",
    "set_num_threads",
    "threads",
    "warmup",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'numba_bn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_limits.watch()
