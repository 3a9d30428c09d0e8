"""How kernels are compiled by numba-cuda."""

import subprocess
import sys

import pytest

target = pytest.importorskip("numba_bn._kernels.cuda.target", exc_type=ImportError)


def test_it_is_imported_where_numpy_lacks_a_name_that_it_asks_for():
    """As NumPy 2.5 does."""
    code = """
import numpy as np
vars(np).pop("row_stack", None)
from numba_bn._kernels.cuda import target
assert "row_stack" not in vars(np)
assert target.types.float32.bitwidth == 32
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_helpers_are_compiled_for_the_device_that_is_meant():
    meant = []

    @target.extending.intrinsic
    def note(typingctx):
        def codegen(context, builder, sig, args):
            meant.append(target.compiling_for.get())
            return context.get_dummy_value()

        return target.types.void(), codegen

    @target.inline
    def inner():
        note()

    @target.inline
    def helper():
        inner()

    def body():
        helper()

    class Noting:
        def build(self, variant):
            return body, target.types.void()

    for capability in ((7, 5), (7, 5), (8, 0), (7, 5)):
        target.compiled(Noting(), (), capability, "ptx")
    assert meant == [(7, 5), (8, 0), (7, 5)]
