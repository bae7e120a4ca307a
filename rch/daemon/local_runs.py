"""Runs here: the caller is granted the run of its own command, with one reason, and how it ended is remembered."""

from __future__ import annotations

import secrets
import time

import structlog

from rch.config import Config
from rch.daemon.portability import Portability
from rch.daemon.session import Session
from rch.daemon.store import Job, Store
from rch.daemon.wire import Frame
from rch.errors import NotOffloadable
from rch.intercept.decision import Kind
from rch.order import Order
from rch.toolchains import cores_wanted

_log = structlog.get_logger("here")

SILENT = frozenset({"not-a-build", "never-intercept", "disabled", "on-worker", "bypass", "excluded", "toolchain-off"})
"""Reasons of commands that could not have been offloaded: no line on stderr."""


UNDECIDED = frozenset({"bad-config", "bad-environment", "no-daemon"})
"""Reasons from before anybody has looked whether the command is a build: it is run, and told, as if it were one."""


class LocalRuns:
    """Grants runs on this machine."""

    def __init__(self, store: Store, portability: Portability) -> None:
        self._store = store
        self._portability = portability

    def grant(
        self, reason: NotOffloadable, kind: Kind | None, order: Order, caller: Session, config: Config | None
    ) -> None:
        """Grant the caller the run of its own command, and remember how it ended."""
        undecided = kind is None and reason.code in UNDECIDED
        offloadable = undecided or (kind is not None and reason.code not in SILENT)
        job = Job(
            id=f"j-{secrets.token_hex(5)}",
            key="",
            command=list(order.argv),
            cwd=order.cwd,
            kind=kind.name if kind else "",
            state="running",
            worker="here",
            reason=reason.code,
            times={"created": time.time(), "started": time.time()},
        )
        caller.say(
            Frame.LOCAL,
            code=reason.code,
            reason=" ".join(reason.message.split()),
            hint=reason.hint,
            slots=(cores_wanted(order.words or order.argv, kind) or 1) if kind else None if undecided else 0,
            env=dict(config.execution.env) if config else {},
            hooks={"on_fallback": config.hooks.on_fallback if config and offloadable else ""},
            quiet=not offloadable or (kind is not None and kind.name.startswith("cc.")),
        )
        _log.info("local", command=order.argv.shown()[:500], code=reason.code, reason=reason.message)
        if not offloadable:
            return
        self._store.put_job(job)
        done = caller.wait_local()
        status = done.get("status") if done else None
        job.state = "lost" if done is None else ("done" if status == 0 else "failed")
        job.exit_status = status if type(status) is int else None
        job.times["ended"] = time.time()
        self._store.put_job(job)
        self._portability.learn(reason, order.argv.shown(), status)
