"""What is green here and red there: repeated here once, remembered, and kept here from then on (lessons HB-08)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import structlog

from rch.config import Config
from rch.daemon.running import Running
from rch.daemon.store import Mark, Store
from rch.errors import NotOffloadable
from rch.order import Order
from rch.schedule.choose import WorkerView
from rch.toolchains import FREE_COMMAND

_log = structlog.get_logger("portability")

MARK_S = 7 * 86400.0
"""A mark that nothing has put in question is tried again after a week: one red build there, repeated here."""


class RedThere(NotOffloadable):
    """Red on a class of worker where this project never was green; green here means unportable."""

    def __init__(self, running: Running) -> None:
        super().__init__(
            f"failed on {running.name}, where this project never built before; repeated here",
            code="red-there",
            hint="rch doctor .",
        )
        self.worker = running.name
        self.worker_class = str(running.job.options.get("class", ""))
        self.equipment = str(running.job.options.get("equipment", ""))
        self.project = running.job.project


class Portability:
    """What this workstation has learnt about projects and classes of workers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def hold_back(self, running: Running, order: Order, config: Config) -> bool:
        """Keep the output until the end is known: asked for, or a red result would be repeated here (HB-08).

        A terminal is never held back: people want to see that something happens.
        """
        if not config.execution.streaming_output:
            return True
        return order.fds["1"] != "tty" and self._may_repeat(running, order)

    def _may_repeat(self, running: Running, order: Order) -> bool:
        if order.options.must_be_remote or running.kind.name == FREE_COMMAND.name:
            return False
        worker_class = str(running.job.options.get("class", ""))
        if not worker_class:  # RCH_MODE: what ran there was asked for, and there is nothing to learn from it
            return False
        return not self._store.was_green(running.job.project, running.kind.name, worker_class)

    def repeat_red_here(self, running: Running, order: Order) -> bool:
        """A red result of what was never green on that class of worker is repeated here (lessons HB-08)."""
        rc = running.rc or {}
        red = rc.get("reason") == "exited" and rc.get("code") != 0
        return red and self._may_repeat(running, order)

    def learn(self, reason: NotOffloadable, command: str, status: object) -> None:
        """How the repetition here ended: green here and red there makes the project unportable."""
        if isinstance(reason, RedThere) and status == 0:
            why = f"{command[:80]} failed on {reason.worker}, passed here"
            self._store.mark_unportable(Mark(reason.project, reason.worker_class, reason.worker, reason.equipment, why))
            _log.warning("unportable", project=reason.project, worker_class=reason.worker_class, why=why)

    def judged(self, project: str, views: Sequence[WorkerView]) -> list[WorkerView]:
        """*views* with the marks of *project*; a mark that is old, or whose worker was equipped anew since, goes."""
        marks = {}
        equipment = {view.name: view.equipment for view in views}
        for mark in self._store.unportable(project):
            if equipment.get(mark.worker, mark.equipment) != mark.equipment or time.time() - mark.marked > MARK_S:
                self._store.forget_unportable(mark.project, mark.worker_class)
                _log.info("portable again?", project=project, worker_class=mark.worker_class, worker=mark.worker)
            else:
                marks[mark.worker_class] = mark.reason
        return [replace(view, unportable=marks.get(view.worker_class, "")) for view in views]

    def forget(self) -> int:
        """Take every mark away; how many there were."""
        return self._store.forget_unportable()
