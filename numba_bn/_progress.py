"""Bars, by tqdm, for what takes long."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any


def bars(call: str, progress: bool | None) -> Any:
    """Return tqdm if a bar is wanted, else None; by default on a terminal, if tqdm is there."""
    if progress is None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        progress = terminal and find_spec("tqdm") is not None
    if not progress:
        return None
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError(
            f"{call}: progress=True needs tqdm: python -m pip install 'numba-bn[cli]'"
        ) from error
    return tqdm
