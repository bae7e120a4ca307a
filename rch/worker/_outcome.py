"""How one command in the sandbox ended, and what that means."""

from __future__ import annotations

import errno
import os
import signal
from typing import Any, Dict, Optional, Tuple

from rch.worker import _clock
from rch.worker._cgroup import JobGroup, oom_kills_of_machine


class Outcome:
    """How one command in the sandbox ended. ``failure`` is set when it never started: (code or None, message)."""

    def __init__(self) -> None:
        self.started_ns = 0
        self.wait_status: Optional[int] = None
        self.failure: Optional["tuple[Optional[int], str]"] = None
        self.usage = (0, 0, 0)
        self.reason = "exited"
        self.message = ""

    def judge_memory(self, group: Optional[JobGroup], kills_before: int) -> None:
        """A red end that was the memory's fault: counted by *group*, else by the machine since *kills_before*."""
        if self.reason != "exited" or self.wait_status == 0:
            return
        if group is not None:
            if group.oom_kills():
                self.reason, self.message = "oom", "over its memory limit"
            return
        killed = self.wait_status is not None and signal_of(self.wait_status) == signal.SIGKILL
        if killed and oom_kills_of_machine() > kills_before:
            self.reason, self.message = "oom", "the worker ran out of memory"

    def result(self, started_ns: int) -> Dict[str, Any]:
        """What ``rc`` says (docs/architecture.md); *started_ns* counts where no command was started."""
        status = self.wait_status
        code, number = (None, None) if status is None else (code_of(status), signal_of(status))
        if self.failure is not None:
            code, self.reason = self.failure[0], "setup"
            self.message = self.message or self.failure[1]
        return {
            "code": code,
            "signal": number,
            "reason": self.reason,
            "message": self.message,
            "started_ns": self.started_ns or started_ns,
            "ended_ns": _clock.now_ns(),
            "user_ms": self.usage[0],
            "system_ms": self.usage[1],
            "max_rss": self.usage[2] * 1024,
        }


def start_failure(number: int, stage: bytes) -> Tuple[Optional[int], str]:
    text = os.strerror(number)
    if stage == b"exec":
        return (127, "command not found") if number == errno.ENOENT else (126, "cannot be executed: %s" % text)
    return None, "%s: %s" % ({b"cwd": "working directory"}.get(stage, "set-up"), text)


def signal_of(status: int) -> Optional[int]:
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None


def code_of(status: int) -> Optional[int]:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None


def shown(status: Optional[int]) -> str:
    if status is None:
        return "no result"
    number = signal_of(status)
    return "signal %d" % number if number is not None else "exit status %s" % code_of(status)
