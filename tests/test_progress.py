"""Bars: on a terminal or when asked for, and never a reason to fail."""

import io
import sys

import pytest

from numba_bn import _progress, _warmup


class Terminal(io.StringIO):
    """Something that looks like a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("progress", "stream", "shown"),
    [
        (None, io.StringIO, False),
        (None, Terminal, True),
        (True, io.StringIO, True),
        (False, Terminal, False),
    ],
)
def test_a_bar_of_warmup(progress, stream, shown, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr(_warmup, "_complete", lambda kernels: (0, 0))
    monkeypatch.setattr(_warmup, "_steps", lambda dtype: [lambda: None] * 3)
    monkeypatch.setattr(_warmup, "_kernels", lambda: [None])
    _warmup.warmup(progress=progress)
    assert ("3/3" in sys.stderr.getvalue()) == shown


def test_without_tqdm_there_is_no_bar(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(_progress, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert _progress.bars("warmup", None) is None
    with pytest.raises(ImportError, match=r"^warmup: progress=True needs tqdm: .*numba-bn\[cli\]"):
        _progress.bars("warmup", True)
