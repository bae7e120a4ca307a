"""Speed scores kept fresh: idle workers are measured, one at a time, when their score is stale (coverage D-8).

Whether a score still holds is the worker's to say (``bench`` with ``max_age_s``): it keeps the record, and it alone
knows that its CPU, memory or compiler changed. So a restart of rchd measures nothing that is valid, and neither does a
second workstation (lessons DS-09). A job that arrives there ends the measurement, whoever sent it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

import structlog

from rch.daemon.pool import Member, Pool
from rch.daemon.store import Store
from rch.errors import ConfigError, Fault, RchError
from rch.execute.executor import Hello
from rch.fleet.record import read_observed, write_record
from rch.paths import AbsPath

LOOK_S = 15.0
"""How often idle workers are looked for."""

QUIET_S = 60.0
"""A worker that had no job of ours for so long counts as idle: between two builds of an agent nothing is measured."""

AGAIN_S = 600.0
"""After a measurement that was given up, or could not be made."""

ANSWER_S = 270.0
"""More than a worker allows itself for a measurement and, when that tells of a change, for one more."""


class Measurer:
    """One thread that measures. interval_s: how old a score may grow; 0 leaves measuring to people and playbooks."""

    def __init__(
        self,
        state_dir: AbsPath,
        store: Store,
        pool: Pool,
        *,
        interval_s: float,
        look_s: float = LOOK_S,
        quiet_s: float = QUIET_S,
    ) -> None:
        self._state_dir = state_dir
        self._store = store
        self._pool = pool
        self._interval_s = interval_s
        self._look_s = look_s
        self._quiet_s = quiet_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._busy_at: dict[str, float] = {}
        self._due_at: dict[str, tuple[Hello | None, float]] = {}
        self.log = structlog.get_logger("measure")

    def start(self) -> None:
        """Begin to look, if there is an interval."""
        if self._interval_s > 0:
            self._thread = threading.Thread(target=self._run, name="measure", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Measure nothing more; a request under way ends with its connection."""
        self._stop.set()

    def _run(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(self._look_s):
            busy = {job.worker for job in self._store.unfinished()}
            switched = self._store.switches()
            for member in self._pool.members():
                name = member.worker.name
                now = time.monotonic()
                if name in busy or member.slots_used:
                    self._busy_at[name] = now
                if (
                    member.worker.declared.enabled
                    and member.ready()
                    and name not in switched
                    and now - self._busy_at.get(name, started) >= self._quiet_s
                    and now >= self._due(member)
                ):
                    self._measure(member)
                    break  # then look again who is busy

    def _due(self, member: Member) -> float:
        """When the worker is to be asked next; at once after a new connection, behind which another machine may be."""
        hello, due_at = self._due_at.get(member.worker.name, (None, 0.0))
        return due_at if hello is member.hello else 0.0

    def _measure(self, member: Member) -> None:
        name = member.worker.name
        hello, next_s = member.hello, AGAIN_S
        try:
            fields = {"keep": True, "max_age_s": self._interval_s}
            found = dict(member.executor.request("bench", fields, timeout_s=ANSWER_S).fields)
            self._record(member, found)
            left_s = self._interval_s - (0.0 if found.get("measured") else _age_s(found))
            next_s = left_s if left_s > 0 else self._interval_s  # an older score holds when somebody else brought it
            if found.get("measured"):
                self.log.info("measured", worker=name, speed_score=found.get("speed_score"))
        except Fault as error:
            self.log.info("not measured", worker=name, why=error.message)
        except RchError as error:
            self.log.warning("not measured", worker=name, why=error.message)
        self._due_at[name] = (hello, time.monotonic() + next_s)

    def _record(self, member: Member, found: dict[str, Any]) -> None:
        """Put the score among the facts, where the choice and `rch workers list` find it."""
        kept = ("machine", "measured_at", "measured", "ok")
        before = read_observed(self._state_dir, member.worker.name).facts  # a probe may have written them just now
        facts = {
            **before,
            "speed_score": found.get("speed_score"),
            "speed": {key: value for key, value in found.items() if key not in kept},
        }
        if facts != dict(before):
            with contextlib.suppress(ConfigError):  # a worker's nonsense stays out of the record
                write_record(self._state_dir, member.worker.name, json.dumps(facts).encode("ascii"))


def _age_s(found: dict[str, Any]) -> float:
    at = found.get("measured_at")
    return max(0.0, time.time() - at) if type(at) is int else 0.0
