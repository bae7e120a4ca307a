"""One check of ``rch doctor`` as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Check:
    """What one look found.

    name:    stable, "state-dir" or "worker:css:clock".
    status:  ok, warn (works, but not as it should) or fail (builds run here, or nothing runs).
    finding: one line for people.
    remedy:  the command to try; empty only when the status is ok.
    fix:     does what the remedy says, where that is safe without a person (``--fix``); returns nothing, may raise.
    """

    name: str
    status: str
    finding: str
    remedy: str = ""
    fix: Callable[[], object] | None = field(default=None, compare=False)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status,
            "finding": self.finding,
            "remedy": self.remedy,
            "fixable": self.fix is not None,
        }


def ok(name: str, finding: str) -> Check:
    return Check(name, OK, finding)


def warn(name: str, finding: str, remedy: str, fix: Callable[[], object] | None = None) -> Check:
    return Check(name, WARN, finding, remedy, fix)


def fail(name: str, finding: str, remedy: str, fix: Callable[[], object] | None = None) -> Check:
    return Check(name, FAIL, finding, remedy, fix)
