"""What people and programs read: JSON, plain tables, rich tables on a terminal. stdout is data, stderr is talk."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Output:
    """How the caller wants to be talked to: the flags ``-v -q --json``, before or after the subcommand."""

    verbose: bool = False
    quiet: bool = False
    json: bool = False

    def document(self, data: Any) -> None:
        """One JSON document on stdout."""
        print(json.dumps(data, indent=2, ensure_ascii=True, default=str))

    def record(self, data: Any) -> None:
        """One line of JSON on stdout, for listings that grow (logs, watching)."""
        print(json.dumps(data, ensure_ascii=True, default=str), flush=True)

    def line(self, text: str = "") -> None:
        """One line of the answer on stdout."""
        print(printable(text))

    def answer(self, text: str, document: dict[str, Any]) -> None:
        """The whole answer: *document* with ``--json``, else *text*."""
        if self.json:
            self.document(document)
        else:
            self.line(text)

    def say(self, text: str) -> None:
        """One line of talk on stderr; ``-q`` silences it."""
        if not self.quiet:
            print(printable(text), file=sys.stderr)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
        """Rows under headers: boxed and coloured on a terminal, else columns two spaces apart, one row a line."""
        cells = [[printable(str(cell)) for cell in row] for row in rows]
        if not cells:
            self.say(empty)
            return
        if sys.stdout.isatty():
            _rich_table(headers, cells)
            return
        widths = [max(len(header), *(len(row[i]) for row in cells)) for i, header in enumerate(headers)]
        for row in (list(headers), *cells):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def printable(text: str) -> str:
    """*text* without control characters: what a worker or a repository says must not drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def wants_colour() -> bool:
    """True where colour is welcome on stdout: a terminal, and no NO_COLOR."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def colour(text: str, state: str) -> str:
    """*text* in the colour of a state, where colour is welcome."""
    codes = {
        "ok": "32",
        "healthy": "32",
        "warn": "33",
        "degraded": "33",
        "draining": "33",
        "fail": "31",
        "unreachable": "31",
    }
    if not wants_colour() or state not in codes:
        return text
    return f"\x1b[{codes[state]}m{text}\x1b[0m"


def duration(seconds: float | None) -> str:
    """ "45 s", "2 m 05 s", "2 h 34 m", "3 d 4 h"; "-" where unknown."""
    if seconds is None or seconds < 0:
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(count: float | None) -> str:
    """ "9.1 kB", "11.8 MB"; powers of 1000; "-" where unknown."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _rich_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header)
    styles = {"healthy": "green", "ok": "green", "done": "green", "unreachable": "red", "failed": "red", "lost": "red"}
    for row in cells:
        table.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    Console(no_color=not wants_colour(), highlight=False).print(table)
