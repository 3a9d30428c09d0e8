"""A process that compiles a small kernel, and says what it found: what the cache tests start.

The kernel is the gradient through a ReLU, the smallest of the package. Given dtypes, both its twins
compute in each. Given none, each line of the input names a folder for the cache, in which the
serial twin computes in two dtypes, as if the process were new.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The folder with the package that is tested."""
_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("NUMBA_BN_CACHE", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
}


def start(*dtypes, root=ROOT, before=(), **environment):
    """Start the job; ``before`` comes before the interpreter on the command line."""
    own = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/proc/nothing"}
    return subprocess.Popen(
        [*before, sys.executable, __file__, *dtypes],
        env={**_ENVIRONMENT, **own, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*dtypes, root=ROOT, limit=60, **options):
    """Run the job in every dtype, in a process of its own; return what it says."""
    with start(*dtypes, root=root, **options) as process:
        try:
            out, err = process.communicate(timeout=limit)
        finally:
            process.kill()
    assert process.returncode == 0, err
    said = json.loads(out)
    assert Path(said.pop("package")) == Path(root) / "numba_bn"
    return said


def compute(twins, dtypes):
    """Compute in every dtype by every twin; return whether that was right and what it took."""
    import numpy as np

    y = np.linspace(-1.0, 1.0, 1001)
    want, right = np.where(y <= 0.0, 0.0, 5.0), True
    for dtype in dtypes:
        for twin in twins:
            out = np.full(y.size, np.nan, dtype)
            twin(np.full(y.size, 5.0, dtype), y.astype(dtype), out)
            right = right and np.array_equal(out, want)
    return {
        "right": right,
        "first": float(out[0]),
        "compiled": sum(sum(twin.stats.cache_misses.values()) for twin in twins),
        "loaded": sum(sum(twin.stats.cache_hits.values()) for twin in twins),
        # a parallel kernel has something to do when it is loaded, a serial one has not
        "parallel": [any(found.reload_init for found in twin.overloads.values()) for twin in twins],
    }


def once(dtypes):
    """Compute in every dtype by both twins."""
    import numba_bn
    from numba_bn._kernels.cpu.elementwise import relu_gradient

    said = compute([relu_gradient.twin(parallel) for parallel in (False, True)], dtypes)
    return {"package": str(Path(numba_bn.__file__).parent), **said}


def anew(folder, dtypes):
    """Compute in every dtype by a new serial twin, with the cache in another folder."""
    from numba_bn._kernels import _store
    from numba_bn._kernels._launch import Kernel
    from numba_bn._kernels.cpu.elementwise import relu_gradient

    os.environ["NUMBA_BN_CACHE"] = folder
    _store.places.cache_clear()
    return compute([Kernel(relu_gradient._body).twin(False)], dtypes)


def say(compute, *args):
    """Print the result of a computation, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        said = compute(*args)
    print(json.dumps({**said, "warnings": [str(w.message) for w in caught]}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        say(once, sys.argv[1:])
    else:
        for line in sys.stdin:
            folder, *dtypes = line.split()
            say(anew, folder, dtypes)
