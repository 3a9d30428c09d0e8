"""An exception at any step of an action, as an interrupt would raise it. No tests."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numba_bn as nbn

PACKAGE = str(Path(nbn.__file__).parent)


class Interrupt(BaseException):
    """What is raised."""


class _Trace:
    """A trace function that counts calls, lines and returns in some files, and raises at one."""

    def __init__(self, at: int, within: str) -> None:
        self.left, self.within = at, within

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self.within):
            return None
        if event != "exception":
            self.left -= 1
            if self.left == 0:
                raise Interrupt
        return self


def _reaches(trace: _Trace, action: Callable[[], object]) -> bool:
    """Run an action, and tell whether it came to the step at which the trace raises."""
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def interrupted(
    make: Callable[[], Any], act: Callable[[Any], object], within: str = PACKAGE
) -> Iterator[Any]:
    """Interrupt an action at its first step, its second, ...; yield what it acted on, each time.

    That is made anew for each. Last comes the one whose action was left to end.
    """
    at = 0
    reached = True
    while reached:
        at += 1
        target = make()
        reached = _reaches(_Trace(at, within), lambda: act(target))  # noqa: B023
        yield target
