"""``--output`` and ``--show-worker``: which lines of a job's output are shown, and under whose name (coverage A-23).

Only asked for by hand; without these options output passes byte for byte and this module is never loaded.
"""

from __future__ import annotations

import re
from time import monotonic

HOLD_BYTES = 8 * 1024
HOLD_S = 0.05
"""A line that has not ended is judged as it is after so many bytes or seconds; what follows of it goes the same way."""

_ANSI = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_WANTED = {
    "errors": re.compile(rb"error\[E|error:|warning:|\A  --> "),
    "summary": re.compile(rb"Compiling|Finished|Running|Doc-tests|test result:"),
    "progress": re.compile(rb"Compiling|Downloading|Building|% "),
}


class LineFilter:
    """One stream. Lines end with a newline; a carriage return is a part of its line."""

    __slots__ = ("_held", "_open", "_prefix", "_since", "_verdict", "_wanted")

    def __init__(self, output: str = "all", worker: str = "") -> None:
        self._wanted = _WANTED.get(output)
        self._prefix = b"[" + worker.encode("utf-8", "surrogateescape") + b"] " if worker else b""
        self._held = b""
        self._since = 0.0
        self._open = False  # the line that is arriving was judged already
        self._verdict = True

    def feed(self, data: bytes) -> bytes:
        """What is to be shown now that *data* has arrived."""
        if not self._held:
            self._since = monotonic()
        shown = []
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            shown.append(self._judge(line, b"\n"))
            self._open = False
            self._since = monotonic()
        if len(self._held) > HOLD_BYTES:
            shown.append(self.flush())
        return b"".join(shown)

    def wait_s(self) -> float | None:
        """Seconds until :meth:`flush` is due, None when nothing is held."""
        return max(0.0, self._since + HOLD_S - monotonic()) if self._held else None

    def flush(self) -> bytes:
        """Judge and release the line that has not ended."""
        held, self._held = self._held, b""
        if not held:
            return b""
        shown = self._judge(held, b"")
        self._open = True
        return shown

    def _judge(self, line: bytes, end: bytes) -> bytes:
        if not self._open:
            self._verdict = self._wanted is None or bool(self._wanted.search(_ANSI.sub(b"", line)))
            return self._prefix + line + end if self._verdict else b""
        return line + end if self._verdict else b""
