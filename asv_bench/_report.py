"""What peers.py writes: a table in Markdown, a picture, and the README's lines about them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from _libraries import LIBRARIES, NUMBA_BN, ONE_THREAD
from _results import GIVEN, Row, case_of, faster

BEGIN, END = "<!-- peers.py writes from here -->", "<!-- to here -->"
COMMAND = "python asv_bench/peers.py"
Found = dict[str, Any]


def table(found: Found) -> str:
    """Return everything that was measured, as Markdown."""
    peers = [name for name in LIBRARIES if name not in (NUMBA_BN, ONE_THREAD)]
    heads = ["array", "", "operation", "× limit", "at most", "", "out= ms", "ms"]
    samples = f"{found['samples']} calls a round, of {found['rounds']} rounds"
    lines = [
        f"# Side by side\n\n{machine_line(found)} Written by `{COMMAND}`.\n",
        f"Times are medians in milliseconds, of {samples}. The limit is a plain",
        "pass `y = a*x + b` over the same arrays on the same threads, for a backward",
        "`z = a*x + b*y`, and each call is in turn with its limit; “× faster” is against the",
        "fastest of PyTorch, torch.compile and JAX; PyTorch's backward is autograd's.\n",
        *markdown_table(
            ["", "value", "at least", ""], [_summary(line) for line in found["summary"]]
        ),
        "",
        *markdown_table(
            [*heads, *peers, "× faster"], [_cells(row, peers) for row in found["rows"]]
        ),
    ]
    return "\n".join(lines) + "\n"


def markdown_table(heads: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]


def _summary(line: dict[str, Any]) -> list[str]:
    return [line["what"], f"{line['value']:.2f}", f"{line['target']:.2f}", _mark(line["met"])]


def _mark(met: bool | None) -> str:
    return {True: "", False: "missed", None: ""}[met]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _cells(row: Row, peers: list[str]) -> list[str]:
    ms = row["ms"]
    return [
        str(case_of(row)),
        row["where"],
        row["operation"],
        f"{row['ratio']:.2f} {row['limit']}",
        _number(row["target"]),
        _mark(row["met"]),
        *(_number(ms.get(name)) for name in (GIVEN, NUMBA_BN, *peers)),
        _number(faster(row) if NUMBA_BN in ms else None),
    ]


def machine_line(found: Found) -> str:
    """Return where and when it was measured."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return f"{found['machine']}, {found['threads']} threads, {found['date']}; {versions}."


def readme_block(found: Found) -> str:
    """Return the README's lines: the picture, and where and when it was measured."""
    lines = [
        f"- {line['what']}: {line['value']:.2f} (aim: {line['target']:.2f} or more)"
        for line in found["summary"]
    ]
    picture = "![Bars: times faster than the fastest framework; fraction of what memory allows]"
    where = f"{machine_line(found)} [Every figure](docs/peers.md)."
    return "\n".join([BEGIN, f"{picture}(docs/peers.png)\n", where, "", *lines, END])


def write_readme(path: Path, found: Found) -> None:
    """Put the lines where they belong."""
    text = path.read_text(encoding="utf-8")
    block = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not block.search(text):
        raise ValueError(f"{path.name} has no lines between {BEGIN} and {END}")
    path.write_text(block.sub(lambda _: readme_block(found), text), encoding="utf-8")


def draw(path: Path, found: Found) -> None:
    """Draw the bars of every float32 array that PyTorch and the others did too."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [r for r in found["rows"] if r["operation"] in ("train", "backward")]
    rows = [r for r in rows if r["dtype"] == "float32" and r["target"] is not None]
    names = list(dict.fromkeys(str(case_of(row)).removesuffix(" float32") for row in rows))
    figure, (left, right) = pyplot.subplots(
        1, 2, sharey=True, figsize=(10, 2 + 0.3 * len(names)), layout="constrained"
    )
    for shift, operation in ((-0.2, "train"), (0.2, "backward")):
        some = [row for row in rows if row["operation"] == operation]
        places = [names.index(str(case_of(row)).removesuffix(" float32")) + shift for row in some]
        left.barh(places, [faster(row) or 0.0 for row in some], 0.4, label=operation)
        right.barh(places, [1 / row["ratio"] for row in some], 0.4, label=operation)
    left.set(yticks=range(len(names)), yticklabels=names, xlabel="× faster than the fastest peer")
    right.set(xlabel="fraction of what memory allows (1: a plain pass, or a triad)")
    left.invert_yaxis()
    for axes in (left, right):
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.legend()
    figure.suptitle(machine_line(found), fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
