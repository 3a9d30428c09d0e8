"""Fuzz the public functions with Atheris, from the corpus beside this file on.

``python tests/fuzz/run.py --seconds 30``; a failure ends it with an error, and the bytes that made
it are left in ``--found``. The corpus alone is replayed by ``tests/test_fuzz.py``, without Atheris.
"""

import argparse
import importlib
import sys
import tempfile
import warnings
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
sys.path.insert(0, str(CORPUS.parents[1]))
INSTRUMENTED = ["stats", "functional", "layers", "folding"]
"""Not the kernels: what Numba compiles has to be as it was written."""


def replay(data: bytes) -> bool:
    """Turn bytes into a call and judge it; tell whether it gave a result."""
    import numpy as np
    from fuzz_calls import call
    from fuzz_property import judge
    from fuzz_strategies import from_bytes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, where values overflow
        return judge(call(from_bytes(data, [np.float32, np.uint8])))


def main() -> None:
    """Run Atheris for a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, help="where new inputs go; a temporary folder")
    options = parser.parse_args()
    import atheris

    with atheris.instrument_imports(include=["numba_bn"]):
        for name in INSTRUMENTED:
            importlib.import_module(f"numba_bn.{name}")
    with tempfile.TemporaryDirectory() as temporary:
        found = options.found or Path(temporary)
        limits = [f"-max_total_time={options.seconds}", "-max_len=96", "-timeout=120"]
        limits += [f"-seed={options.seed}", f"-artifact_prefix={found}/", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], str(found), str(CORPUS), *limits], replay)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
