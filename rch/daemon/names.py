"""Workers and tags that an order or its environment names: those that there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from rch.config import Config
from rch.daemon.pool import Member
from rch.errors import ConfigError, UsageError
from rch.order import Order


def check_names(order: Order, config: Config, members: Iterable[Member]) -> None:
    """Names that stand for nothing are mistakes, not restrictions that nobody meets (lessons UX-04).

    Raises UsageError for an option, ConfigError with code ``bad-environment`` for a variable (coverage A-6).
    """
    declared = [member.worker.declared for member in members]
    workers = sorted(one.name for one in declared)
    tags = sorted({tag for one in declared for tag in one.tags})
    if order.options.worker and order.options.worker not in workers:
        what = order.options.worker
        raise UsageError(_unknown("worker", what, workers), what=what, allowed=tuple(workers), hint="rch workers list")
    for tag in _tags(order.options.tag):
        if tag not in tags:
            raise UsageError(_unknown("tag", tag, tags), what=tag, allowed=tuple(tags), hint="rch workers list")
    if order.options.worker:
        return  # beats every variable
    switches = config.switches
    for variable, names in (("RCH_WORKER", [switches.worker or ""]), ("RCH_WORKERS", switches.workers)):
        for name in names:
            if name and name not in workers:
                _refuse(variable, _unknown("worker", name, workers))
    for tag in _tags("" if order.options.tag else switches.tag or ""):
        if tag not in tags:
            _refuse("RCH_TAG", _unknown("tag", tag, tags))


def _refuse(variable: str, message: str) -> None:
    raise ConfigError(f"{variable}: {message}", key=variable, code="bad-environment", hint=f"unset {variable}")


def _tags(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip().removeprefix("!"))]


def _unknown(kind: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"no {kind} {name!r} in the inventory{meant} (known: {', '.join(known) or 'none'})"
