"""Processes that compute one result together: all of them get it, or all of them raise.

What each of them has is gathered by one collective, so that a step waits for the others once. The
communicator is the caller's, mpi4py's or one alike: nothing here imports mpi4py.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple, NoReturn, Self

from numba_bn._arrays import Array

Facts = dict[str, Any]
"""What must be the same on all ranks, by the name that errors give it."""

_NAMED = 8
"""Ranks that an error names; a thousand numbers would help nobody."""


class _Part(NamedTuple):
    """What a rank sends: its part of the result, or the error that kept it from having one."""

    facts: Facts
    value: Any
    error: str | None


class Ranks:
    """The processes of a communicator. Copies share it; it cannot be pickled.

    ``with ranks:`` is around what a rank does before it gathers: the others hear of an error.
    """

    def __init__(self, comm: Any) -> None:
        self.comm = comm

    @classmethod
    def of(cls, call: str, comm: Any) -> Self | None:
        """Return the ranks of ``comm``, or None where there is but one process."""
        if comm is None:
            return None
        if not all(callable(getattr(comm, name, None)) for name in ("allgather", "Get_size")):
            raise TypeError(
                f"{call}: comm must be a communicator of mpi4py, got {type(comm).__name__}"
            )
        if not comm or getattr(comm, "is_inter", False):
            raise ValueError(
                f"{call}: comm must be a communicator among processes that this one is in, "
                f"got {'an intercommunicator' if comm else 'the null communicator'}"
            )
        return cls(comm) if comm.Get_size() > 1 else None

    def gather(self, call: str, facts: Facts, value: Any) -> list[Any]:
        """Return the ``value`` of every rank, or raise on all if one failed or facts differ."""
        parts: list[_Part] = self.comm.allgather(_Part({"the call": call, **facts}, value, None))
        failed = [f"rank {rank} raised {p.error}" for rank, p in enumerate(parts) if p.error]
        if failed:
            raise RuntimeError(f"{call}: all ranks stop, as {'; '.join(failed[:_NAMED])}")
        if any(p.facts != parts[0].facts for p in parts):
            _raise_difference(call, [p.facts for p in parts])
        return [p.value for p in parts]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # not of Ctrl-C: the others may have got it too, and be anywhere
        if isinstance(error, Exception):
            self.comm.allgather(_Part({}, None, f"{type(error).__name__}: {error}"))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a communicator cannot be pickled: pickle the layer's state_dict(), "
            "or set its comm to None first"
        )


def checksum(*arrays: Array) -> str:
    """Return a short text that tells different values apart."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(array.tobytes(), crc)
    return f"values of checksum {crc:08x}"


def _raise_difference(call: str, facts: list[Facts]) -> NoReturn:
    """Raise, naming the first fact that ranks differ in, and who has what."""
    for name in facts[0]:
        ranks: dict[Any, list[int]] = {}
        for rank, own in enumerate(facts):
            ranks.setdefault(own[name], []).append(rank)
        if len(ranks) > 1:
            break
    found = " and ".join(f"{value} on {_listed(having)}" for value, having in ranks.items())
    raise ValueError(f"{call}: {name} must be the same on all ranks, got {found}")


def _listed(ranks: list[int]) -> str:
    """Name some ranks in words."""
    more = f" and {len(ranks) - _NAMED} more" if len(ranks) > _NAMED else ""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks[:_NAMED]))}{more}"
