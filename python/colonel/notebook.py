"""What the tables of notebooks share: HTML, and times and shares in words."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "us"))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table; what the texts hold is text."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    lines = ("".join(f"<td>{html.escape(text)}</td>" for text in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def paragraph(text: str) -> str:
    """A paragraph of text."""
    return f"<p>{html.escape(text)}</p>"


def title(text: str) -> str:
    """A paragraph of text in bold."""
    return f"<p><b>{html.escape(text)}</b></p>"


def time(ns: float | None) -> str:
    """`8.311 us`."""
    if ns is None:
        return "-"
    size, unit = next(((size, unit) for size, unit in UNITS if ns >= size), (1, "ns"))
    return f"{ns / size:.4g} {unit}"


def change(part: float | None) -> str:
    """`+1.5 %`."""
    return "-" if part is None else f"{100 * part:+.1f} %"


def shortened(name: str, length: int = 60) -> str:
    """A name of at most so many letters: kernels of one library differ at both ends."""
    if len(name) <= length:
        return name
    end = (length - 1) // 2
    return f"{name[: length - 1 - end]}…{name[-end:]}"
