"""A stand-in for Numba's device arrays, known by their interface alone. No tests."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any


class Interface:
    """An array of the stand-in for CuPy, seen by its interface."""

    def __init__(self, array: Any, stream: int | None) -> None:
        self.array, self.dtype, self.shape = array, array.dtype, array.shape
        strides = None if array.view.flags.c_contiguous else array.strides
        self.interface = {
            "shape": array.shape,
            "strides": strides,
            "typestr": array.dtype.str,
            "data": (array.data.ptr, False),
            "version": 3,
            "stream": stream,
        }

    def __getitem__(self, index: int) -> "Interface":
        return Interface(self.array[index], self.interface["stream"])

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.interface


def target(cupy: Any) -> SimpleNamespace:
    """Return what of Numba's CUDA target the library asks for; streams are their handles."""
    return SimpleNamespace(
        gpus=[nullcontext(), nullcontext()],
        external_stream=lambda handle: handle,
        device_array=lambda shape, dtype, stream: Interface(cupy.empty(shape, dtype), stream),
        to_device=lambda array, stream: Interface(cupy.array(array), stream),
        as_cuda_array=lambda a: SimpleNamespace(copy_to_host=lambda: a.array.view.copy()),
    )
