"""What is kept and for how long: trees and job directories on the workers, history and logs here (coverage C-16).

Every worker is asked to collect once in an hour; it decides what is unused, and touches nothing that is leased.
"""

from __future__ import annotations

import os
import shutil
import threading
import time

import structlog

from rch.config import Config, load_config
from rch.config.places import Places
from rch.daemon.pool import Pool
from rch.daemon.store import Store
from rch.errors import RchError
from rch.project import collect_all

FIRST_S = 120.0
"""After a start, builds come first."""

EVERY_S = 3600.0

HOUR_S, DAY_S = 3600.0, 86400.0

ANSWER_S = 300.0
"""Counting the bytes of a large tree on a slow disk."""


class Collector:
    """One thread that collects."""

    def __init__(self, places: Places, store: Store, pool: Pool) -> None:
        self._places = places
        self._store = store
        self._pool = pool
        self._stop = threading.Event()
        self.log = structlog.get_logger("collect")

    def start(self) -> None:
        """Begin, some time after the start."""
        threading.Thread(target=self._run, name="collect", daemon=True).start()

    def stop(self) -> None:
        """Collect nothing more; a request under way ends with its connection."""
        self._stop.set()

    def collect(self) -> None:
        """Once over all workers that are connected, and this machine."""
        try:
            config = load_config("/", dict(os.environ), state_dir=self._places.state)
        except RchError as error:
            self.log.warning("nothing collected", why=error.message)
            return
        self._on_workers(config)
        self._here(config)

    def _run(self) -> None:
        wait_s = FIRST_S
        while not self._stop.wait(wait_s):
            wait_s = EVERY_S
            try:
                self.collect()
            except Exception:  # the outer edge of this thread: it must come back in an hour
                self.log.exception("collecting failed")

    def _on_workers(self, config: Config) -> None:
        wanted = {
            "max_age_s": config.artifacts.cache_ttl_hours * HOUR_S,
            "job_age_s": config.retention.failed_hours * HOUR_S,
            "keep": config.retention.keep_projects,
        }
        for member in self._pool.members():
            if self._stop.is_set() or not member.ready():
                continue
            try:
                found = member.executor.request("gc", wanted, timeout_s=ANSWER_S).fields
            except RchError as error:
                self.log.warning("not collected", worker=member.worker.name, why=error.message)
                continue
            if found.get("removed"):
                self.log.info("collected", worker=member.worker.name, removed=found["removed"], bytes=found["bytes"])

    def _here(self, config: Config) -> None:
        """Records of jobs that ended before the time, and what was kept of them; undelivered ones too."""
        limit = time.time() - config.metrics.history_retention_days * DAY_S
        gone = self._store.forget_jobs(limit)
        jobs = os.path.join(self._places.state, "jobs")
        for name in os.listdir(jobs) if os.path.isdir(jobs) else ():
            place = os.path.join(jobs, name)
            if os.stat(place).st_mtime < limit and self._store.job(name) is None:
                shutil.rmtree(place, ignore_errors=True)
        if gone:
            self.log.info("history forgotten", jobs=gone)
        collect_all()
