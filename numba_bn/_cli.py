"""The command line, ``numba-bn`` or ``python -m numba_bn``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 if it failed, or exit with 2 if it was not understood."""
    parser = argparse.ArgumentParser(
        prog="numba-bn", description="Batch normalization and its family for plain arrays."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in _COMMANDS:
        add(commands)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"numba-bn: {error}", file=sys.stderr)
        return 1
    return 0


def _command(commands: Any, name: str, what: str, examples: str) -> argparse.ArgumentParser:
    """Add a command; the caller adds its options, and its ``run`` as a default."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _add_info(commands: Any) -> None:
    parser = _command(
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
    parser = _command(
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
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a bar (default: on a terminal, if tqdm is there)",
    )
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


_COMMANDS = (_add_info, _add_warmup)
