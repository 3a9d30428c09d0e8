"""The command line, ``numba-bn`` or ``python -m numba_bn``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from numba_bn._cli.data import add_merge, add_normalize, add_stats
from numba_bn._cli.parsers import add_progress, command

_INTERRUPTED, _UNREAD = 130, 141  # what a shell gives for processes that SIGINT and SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 if it failed, 130 after Ctrl-C; exit with 2 if there is none.

    Where nobody reads what it prints to the end, that is 141.
    """
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, as `head` does, wants no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNREAD
    except (ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        what = str(error) or type(error).__name__
        print(f"numba-bn: {what}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = getattr(arguments, "checkpoint", None)
        again = f"; the same command goes on from {kept}" if kept else ""
        print(f"numba-bn: interrupted{again}", file=sys.stderr)
        return _INTERRUPTED
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what understands the command line."""
    whole = argparse.ArgumentParser(
        prog="numba-bn", description="Batch normalization and its family for plain arrays."
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="command")
    for add in _COMMANDS:
        add(commands)
    return whole


def _add_info(commands: Any) -> None:
    parser = command(
        commands,
        "info",
        "print what a report of a bug needs: versions, devices, threads, cache",
        "  numba-bn info\n  numba-bn info --json",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> None:
    from numba_bn import _info

    found = _info.collect()
    print(json.dumps(found, indent=2) if arguments.json else _info.text(found))


def _add_warmup(commands: Any) -> None:
    parser = command(
        commands,
        "warmup",
        "compile ahead what ordinary calls need, for images and first calls that must be quick",
        "  numba-bn warmup\n  NUMBA_BN_CACHE=/opt/kernels numba-bn warmup --dtype float32 float64",
    )
    parser.add_argument(
        "--dtype", nargs="+", default=["float32"], help="of the arrays to come (default: float32)"
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda, or an architecture: sm_90 (default: cpu)"
    )
    add_progress(parser)
    parser.set_defaults(run=_warmup)


def _warmup(arguments: argparse.Namespace) -> None:
    from numba_bn._kernels import _store
    from numba_bn._warmup import warmup

    did = warmup(arguments.dtype, arguments.device, arguments.progress)
    print(f"compiled {did.compiled}, loaded {did.loaded}, in {did.seconds:.1f} s")
    used = [(place, *_store.usage(place)) for place in _store.places().folders]
    for place, files, size in used:
        if files:
            print(f"{place}: {files} files, {size / 1e6:.1f} MB")
    if did.compiled and not any(files for _, files, _ in used):
        raise OSError("what was compiled could be kept nowhere; NUMBA_BN_CACHE names a folder")


_COMMANDS = (add_stats, add_normalize, add_merge, _add_info, _add_warmup)
