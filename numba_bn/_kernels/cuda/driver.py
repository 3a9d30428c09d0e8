"""The CUDA driver, through cuda.core: the one seam between plans and a device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, NamedTuple

from numba_bn._kernels.cuda import cubins
from numba_bn._kernels.cuda.cubins import needed
from numba_bn._kernels.cuda.kernel import Device, Kernel, Step, Variant

_forked_from: int | None = None


class Traits(NamedTuple):
    """What is known of a device: what plans depend on, and what machine code does."""

    device: Device
    capability: cubins.Capability


class Driver:
    """The present driver; its devices by their ordinals, streams by their handles."""

    def __init__(self) -> None:
        with needed("arrays on NVIDIA GPUs need cuda-core"):
            import cuda.core as core
            from cuda.bindings import driver as raw
        self._core, self._raw = core, raw
        try:
            self._do(raw.cuInit(0))
        except Exception as error:  # without a driver the bindings raise errors of their own
            raise RuntimeError(
                f"numba_bn: no CUDA driver that works ({str(error).splitlines()[0]}). Install "
                "NVIDIA's driver, for CUDA 13 or newer; arrays on the CPU need none"
            ) from error
        self._stream = lru_cache(maxsize=1024)(core.Stream.from_handle)
        self.stream = lru_cache(maxsize=1024)(raw.CUstream)

    @staticmethod
    def _do(returned: tuple[Any, ...]) -> Any:
        """Return what a call of the driver gives, or raise its error."""
        if returned[0]:
            raise RuntimeError(f"numba_bn: the CUDA driver says {returned[0]!r}")
        return returned[-1]

    @cache  # noqa: B019  # there is one driver
    def _context(self, ordinal: int) -> Any:
        """Return the primary context of a device, which all libraries share."""
        return self._do(self._raw.cuDevicePrimaryCtxRetain(ordinal))

    def enter(self, ordinal: int) -> bool:
        """Make a device current; tell whether it was not, and `leave` must follow."""
        context = self._context(ordinal)
        if self._do(self._raw.cuCtxGetCurrent()) == context:
            return False
        self._do(self._raw.cuCtxPushCurrent(context))
        return True

    def leave(self) -> None:
        """Make the device current again that was so before `enter`."""
        self._do(self._raw.cuCtxPopCurrent())

    @cache  # noqa: B019
    def traits(self, ordinal: int) -> Traits:
        """Return what is known of a device."""
        device = self._core.Device(ordinal)
        found = device.properties
        major, minor = device.compute_capability
        return Traits(
            Device(
                found.multiprocessor_count,
                found.max_threads_per_multiprocessor,
                found.l2_cache_size,
            ),
            (major, minor),
        )

    @cache  # noqa: B019
    def _kernel(self, ordinal: int, kernel: Kernel, variant: Variant) -> Any:
        code, entry, _ = cubins.cubin(kernel, variant, self.traits(ordinal).capability)
        return self._core.ObjectCode.from_cubin(code).get_kernel(entry)

    def how(self, ordinal: int, step: Step) -> Any:
        """Return what `launch` is to know of a step: its kernel, loaded; its device is current."""
        kernel = self._kernel(ordinal, step.kernel, step.variant)
        return self._raw.CUfunction(int(kernel.handle)), *step.grid, *step.block, 0

    def launch(self, how: Any, stream: Any, parameters: int) -> None:
        """Launch a step on a stream; ``parameters`` is the address of its arguments' addresses."""
        returned = self._raw.cuLaunchKernel(*how, stream, parameters, 0)
        if returned[0]:
            self._do(returned)

    def zeros(self, ordinal: int, nbytes: int, stream: int) -> tuple[int, Any]:
        """Return the address of zeroed memory, in the order of a stream, and its owner."""
        on = self._stream(stream)
        device = self._core.Device(ordinal)
        device.set_current()
        buffer = device.allocate(nbytes, stream=on)
        buffer.fill(0, stream=on)
        return int(buffer.handle), buffer

    def ordinal_of(self, pointer: int) -> int:
        """Return the device whose memory an address is in."""
        wanted = self._raw.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        return int(self._do(self._raw.cuPointerGetAttribute(wanted, pointer)))

    @contextmanager
    def _at(self, ordinal: int) -> Iterator[None]:
        """Have a device current, which handles of default streams and new events are of."""
        entered = self.enter(ordinal)
        try:
            yield
        finally:
            if entered:
                self.leave()

    def synchronize(self, ordinal: int, stream: int) -> None:
        """Wait until all that is on a stream is done."""
        with self._at(ordinal):
            self._do(self._raw.cuStreamSynchronize(self.stream(stream)))

    def captures(self, ordinal: int, stream: int) -> bool:
        """Tell whether what comes on a stream goes into a CUDA graph."""
        with self._at(ordinal):
            return bool(self._do(self._raw.cuStreamIsCapturing(self.stream(stream))))

    def require_no_capture(self, ordinal: int, stream: int) -> None:
        """Raise where what is copied from the host would be copied again at each replay."""
        if self.captures(ordinal, stream):
            raise RuntimeError(
                "numba_bn: arrays in the CPU's memory cannot be sent along in a CUDA graph, which "
                "would look for them where they were; move them to the device before it is captured"
            )

    def wait(self, ordinal: int, stream: int, other: int) -> None:
        """Let what comes on a stream wait, on the device, for what is on another now."""
        raw, do = self._raw, self._do
        with self._at(ordinal):
            event = do(raw.cuEventCreate(raw.CUevent_flags.CU_EVENT_DISABLE_TIMING))
            try:
                do(raw.cuEventRecord(event, self.stream(other)))
                do(raw.cuStreamWaitEvent(self.stream(stream), event, 0))
            finally:
                do(raw.cuEventDestroy(event))  # the driver keeps it until it is over


@cache
def driver() -> Driver:
    """Return the driver, which is started when the first array on a device comes."""
    if _forked_from is not None:
        raise RuntimeError(
            f"numba_bn: CUDA was used in process {_forked_from} before it forked this one, where "
            "it cannot be used; start processes with multiprocessing's 'spawn'"
        )
    return Driver()


def _after_fork() -> None:
    """Let a forked child know that the driver of its parent is of no use to it."""
    global _forked_from
    if driver.cache_info().currsize:
        _forked_from = os.getppid()
        driver.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
