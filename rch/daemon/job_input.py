"""The caller's stdin and the size of its terminal, on their way to the job."""

from __future__ import annotations

import contextlib
import threading
import time

from rch.daemon.running import Running
from rch.daemon.session import Session
from rch.daemon.terms import wants_stdin
from rch.errors import RchError, Unreachable
from rch.order import Order


def resize(running: Running, rows: int, cols: int) -> None:
    with contextlib.suppress(RchError):
        running.member.executor.request("resize", {"job": running.job.id, "rows": rows, "cols": cols})


def connect(running: Running, order: Order, caller: Session) -> None:
    if wants_stdin(order, running.kind):
        threading.Thread(target=forward, args=(running, caller), name="stdin", daemon=True).start()


def resume(running: Running, order: Order, caller: Session) -> None:
    """After a reconnect: the worker says how much it has, the caller goes on behind that."""
    if not wants_stdin(order, running.kind) or running.ended.is_set():
        return
    with contextlib.suppress(RchError):
        answer = running.member.executor.request("stdin", {"job": running.job.id, "eof": False}, timeout_s=10)
        total = answer.fields.get("total")
        if type(total) is int and total >= 0:
            caller.stdin_taken(total)
            arguments = (running, caller, total)
            threading.Thread(target=forward, args=arguments, name="stdin", daemon=True).start()


def forward(running: Running, caller: Session, total: int = 0) -> None:
    """The caller's stdin from position *total* on to the job, with its end; stops when either is gone."""
    pending, ended = b"", False
    while not running.ended.is_set():
        if not pending and not ended:
            pending, ended = caller.take_stdin(256 * 1024, 1.0)
            if not pending and not ended:
                if caller.gone:
                    return
                continue
        try:
            answer = running.member.executor.request(
                "stdin", {"job": running.job.id, "eof": ended}, pending, timeout_s=30
            )
        except Unreachable:
            time.sleep(0.5)  # the follower reconnects; what was not accepted is sent again
            continue
        except RchError:
            return  # the job has ended or does not read
        accepted = answer.fields.get("accepted")
        taken = accepted if type(accepted) is int and 0 <= accepted <= len(pending) else len(pending)
        pending = pending[taken:]
        total += taken
        if taken:
            caller.stdin_taken(total)
        if ended and not pending:
            return
        if pending and taken == 0:
            time.sleep(0.02)  # the job reads slowly; its buffer there is full
