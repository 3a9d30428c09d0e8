"""``python -m numba_bn``: see `numba_bn._cli`."""

import sys

from numba_bn._cli import main

sys.exit(main())
