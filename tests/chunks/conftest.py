"""What tests of chunks share: blocks so small that there are many."""

import pytest

from numba_bn.chunks.sources import Mapped, Source


@pytest.fixture
def small(monkeypatch):
    """Let blocks be of 3 kB."""
    monkeypatch.setattr(Source, "limit", 3000)
    monkeypatch.setattr(Mapped, "limit", 3000)
