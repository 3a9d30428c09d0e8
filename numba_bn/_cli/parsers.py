"""What the commands' parsers have in common."""

from __future__ import annotations

import argparse
import re
from typing import Any


def command(commands: Any, name: str, what: str, examples: str) -> argparse.ArgumentParser:
    """Add a command; the caller adds its options, and its ``run`` as a default."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a bar."""
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a bar (default: on a terminal, if tqdm is there)",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add how data is read, and how a job goes on."""
    # what takes -1 for a value and no option is to take -2,-1 for one too
    parser._negative_number_matcher = re.compile(r"-\d+(,-?\d+)*$|-\d*\.\d+$")
    parser.add_argument(
        "--channel-axis",
        type=_integers,
        default=(1,),
        metavar="N",
        help="axis of the channels, or axes, as in 1,-1 (default: 1)",
    )
    parser.add_argument("--dtype", help="of the values in a raw file")
    parser.add_argument(
        "--shape", type=_integers, metavar="N,N,…", help="of the array in a raw file, in C order"
    )
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="keeps what was done; the same command goes on from it"
    )
    add_progress(parser)


def _integers(text: str) -> tuple[int, ...]:
    """Return the integers in a list with commas."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        text = f"expected integers, as in 1,-1, got {text!r}"
        raise argparse.ArgumentTypeError(text) from error
