"""A controller for threadpoolctl, so that ``threadpool_limits`` limits numba_bn as well.

Nothing here imports threadpoolctl: the controller is registered once a user has imported it, be it
before this package or after.
"""

from __future__ import annotations

import sys
from typing import Any


def watch() -> None:
    """Register the controller with threadpoolctl, now or as soon as it is imported."""
    if "threadpoolctl" in sys.modules:
        _register(sys.modules["threadpoolctl"])
    else:
        sys.meta_path.insert(0, _Watcher())


class _Watcher:
    """Lets the other finders find threadpoolctl, and has `_register` run once it is imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "threadpoolctl":
            return None
        finders = [f for f in sys.meta_path if f is not self and hasattr(f, "find_spec")]
        spec = next(filter(None, (f.find_spec(name, path, target) for f in finders)), None)
        if spec is not None:
            spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
        return spec


class _Loader:
    """A module's own loader, and `_register` at the end; then nothing of this stays behind."""

    def __init__(self, loader: Any, watcher: _Watcher) -> None:
        self._loader, self._watcher = loader, watcher

    def exec_module(self, module: Any) -> None:
        self._loader.exec_module(module)
        module.__spec__.loader = module.__loader__ = self._loader
        if self._watcher in sys.meta_path:
            sys.meta_path.remove(self._watcher)
        _register(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def _register(threadpoolctl: Any) -> None:
    """Register the controller."""

    class Controller(threadpoolctl.LibController):  # type: ignore[misc]
        """Limits the calling thread.

        threadpoolctl finds libraries by their files. Neither this package nor, before the first
        call, Numba has one; whoever calls a norm has loaded NumPy's.
        """

        user_api = internal_api = "numba_bn"
        filename_prefixes = ("_multiarray_umath",)

        def get_num_threads(self) -> int:
            from numba_bn._threads import get_num_threads

            return get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            from numba_bn._threads import limit

            limit(num_threads)

        def get_version(self) -> str:
            from numba_bn import __version__

            return __version__

    threadpoolctl.register(Controller)
