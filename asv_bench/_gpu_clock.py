"""Time on a device, by its own events; and the arrays that are timed."""

from __future__ import annotations

import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

BEYOND_CACHE = 512 << 20
"""Bytes that arrays taken in turn must have together, so that none is found in the L2."""


def lacking(dtype: str) -> str | None:
    """Say what is missing here for arrays of a dtype."""
    if dtype == "bfloat16" and importlib.util.find_spec("ml_dtypes") is None:
        return "bfloat16 needs ml_dtypes, which is not installed"
    return None


class Clock:
    """How long work takes on a device: medians over repeats, arrays in turn."""

    def __init__(self, device: str, quick: bool, seconds: float = math.inf) -> None:
        import torch

        self.torch, self.device, self.quick = torch, device, quick
        self.on_gpu = device.startswith("cuda")
        self.repeats = 3 if quick else 20
        self.recorded: bool | None = None
        self._end = time.perf_counter() + seconds
        self._stream = torch.cuda.Stream() if self.on_gpu else None

    def device_facts(self) -> dict[str, Any]:
        """What is known of the device."""
        if not self.on_gpu:
            return {"device": "cpu"}
        found = self.torch.cuda.get_device_properties(self.device)
        return {
            "device": found.name,
            "capability": [found.major, found.minor],
            "multiprocessors": found.multi_processor_count,
            "memory": found.total_memory,
            "cuda of PyTorch": self.torch.version.cuda,
            "cudnn": self.torch.backends.cudnn.version(),
        }

    def left(self) -> float:
        """Return the seconds that are left of those given for all."""
        return self._end - time.perf_counter()

    def late(self) -> str | None:
        """Say that no time is left, once it is so."""
        return "no time left" if self.left() <= 0 else None

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            self.torch.cuda.synchronize()

    def aside(self) -> AbstractContextManager[Any]:
        """Make what is called inside use the stream that graphs are recorded on.

        PyTorch runs a backward on the stream of its forward: one that ran on another stream than
        that recorded cannot be recorded.
        """
        return self.torch.cuda.stream(self._stream) if self._stream else nullcontext()

    def array(self, shape: tuple[int, ...], dtype: str, channels_last: bool = False) -> Any:
        """Return an array of random numbers."""
        torch = self.torch
        array = torch.randn(shape, device=self.device).to(getattr(torch, dtype))
        if channels_last and len(shape) == 4:
            array = array.to(memory_format=torch.channels_last)
        return array

    def sets(self, nbytes: int) -> int:
        """Return how many sets of arrays of so many bytes to take in turn."""
        return 1 if self.quick else max(2, -(-BEYOND_CACHE // nbytes))

    def seconds(self, calls: list[Callable[[], Any]]) -> float:
        """Return the median time of one of the calls, which are made in turn.

        On a device they are recorded as a graph, so that the host's part does not count; what
        cannot be recorded is called, and `recorded` is then false. Elsewhere it is None.
        """
        for call in calls[:3] * 2:
            call()
        self.synchronize()
        rounds = 1 if self.quick else max(1, 20 // len(calls))
        play = self._graph(calls * rounds) if self.on_gpu else None
        self.recorded = play is not None if self.on_gpu else None

        def called() -> None:
            for call in calls * rounds:
                call()

        times = [self._once(play or called) for _ in range(self.repeats)]
        return statistics.median(times) / (rounds * len(calls))

    def _graph(self, calls: list[Callable[[], Any]]) -> Callable[[], None] | None:
        cuda = self.torch.cuda
        graph = cuda.CUDAGraph()
        try:
            with self.aside():  # whatever a stream needs is made before it is recorded
                calls[0]()
            self.synchronize()
            with cuda.graph(graph, stream=self._stream):
                for call in calls:
                    call()
            graph.replay()
            self.synchronize()
        except RuntimeError as error:
            print(f"not recorded: {error}"[:200], flush=True)
            return None
        replay: Callable[[], None] = graph.replay
        return replay

    def _once(self, play: Callable[[], None]) -> float:
        if not self.on_gpu:
            started = time.perf_counter()
            play()
            return time.perf_counter() - started
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        play()
        end.record()
        end.synchronize()
        milliseconds: float = begin.elapsed_time(end)
        return milliseconds / 1e3

    def host_microseconds(self, call: Callable[[], Any]) -> float:
        """Return what a call costs the host, which goes on while the device works."""
        number = 20 if self.quick else 300
        times = []
        for _ in range(self.repeats):
            self.synchronize()
            started = time.perf_counter()
            for _ in range(number):
                call()
            times.append((time.perf_counter() - started) / number * 1e6)
        self.synchronize()
        return statistics.median(times)
