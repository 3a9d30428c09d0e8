"""The benchmarks. Compiled kernels are kept per content of the package, apart from the user's.

asv installs one commit after another into the same folder; a kernel found there by name and date
could be another commit's.
"""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[1] / ".asv" / "kernels"


def content_key(package: Path) -> str:
    """Return a hash of every source file of a package."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _installed() -> Path:
    """Return the folder of the installed package, without importing it."""
    spec = find_spec("numba_bn")
    if spec is None or spec.origin is None:
        raise ImportError("numba_bn must be installed in the environment that is measured")
    return Path(spec.origin).parent


# read by Numba when it is imported, so before any benchmark is
os.environ.setdefault("NUMBA_CACHE_DIR", str(KERNELS / content_key(_installed())))
