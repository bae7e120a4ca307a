"""Everything that can go wrong, and what it means for the caller.

::

    RchError                            exit_status, hint; never raised bare
      UsageError (ValueError)           2    what, allowed
      ConfigError (ValueError)          2    file, line, key, value, nearest known key
      Fault                             the worker, the network or rch broke: feeds the breaker; the next
                                        worker before the start, once more after it for repeatable kinds
        Unreachable (ConnectionError)   4    host, stage, elapsed_s
        ToolMissing (LookupError)            host, tool, wanted, found
        VersionMismatch                      host, ours, theirs
        TransferFault (OSError)              host, direction, path, bytes_done
        WorkerFault                          host, operation; the worker answered an error of its own
        DiskFull (OSError)                   host ("here" for this machine), path
        JobLost                              host, job, last_output_at
        HostileAnswer                        host, path; what the worker sent breaks a rule, nothing was placed
      NotOffloadable                    103  under --require-remote, else local; code, one reason per worker
      ProductsUnverified                102  the build passed, its files did not arrive whole: paths
      Provisioning                      5    host, task; what a playbook could not do there
      NoSuchJob (LookupError)           6    job
      Refused                           3    refused before anything was sent

Beside these a command may end with 124 (our time limit) or 128+n (death by signal n). A red build is not an
exception: it is a Job whose exit status is passed on untouched and never counts against a worker.

A message answers three things in one line: what failed, where, and (in ``hint``) what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class RchError(Exception):
    """Root of the tree. ``hint`` is the next command to try, or empty."""

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def label(self) -> str:
        """The CLASS of ``rch: error[CLASS]``: the name of the class in the tree above."""
        return next(c.__name__ for c in type(self).__mro__ if c.__module__ == __name__)

    def one_line(self) -> str:
        """``rch: error[CLASS] message; next: hint`` on one line, whatever the message held."""
        text = " ".join(self.message.split())
        tail = f"; next: {self.hint}" if self.hint else ""
        return f"rch: error[{self.label}] {text}{tail}"


class UsageError(RchError, ValueError):
    """The command line is off: ``what`` was given, ``allowed`` is what could have been."""

    exit_status = 2

    def __init__(self, message: str, *, what: str = "", allowed: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.what = what
        self.allowed = allowed


class ConfigError(RchError, ValueError):
    """A configuration or inventory file is off; ``file`` and ``line`` (0 = unknown) say where.

    ``code`` is the reason code when a command runs here because of it: bad-config or bad-environment.
    """

    exit_status = 2

    def __init__(
        self,
        message: str,
        *,
        file: str = "",
        line: int = 0,
        key: str = "",
        nearest: str = "",
        code: str = "bad-config",
        hint: str = "",
    ) -> None:
        place = f"{file}:{line}: " if file and line else (f"{file}: " if file else "")
        super().__init__(place + message, hint=hint)
        self.code = code
        self.file = file
        self.line = line
        self.key = key
        self.nearest = nearest


class Fault(RchError):
    """The worker, the network or rch broke; ``host`` is the inventory name of the worker."""

    def __init__(self, message: str, *, host: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.host = host


class Unreachable(Fault, ConnectionError):
    """No connection, or the connection ended; ``stage`` is connect, handshake, request or transfer."""

    exit_status = 4

    def __init__(
        self, message: str, *, host: str = "", stage: str = "connect", elapsed_s: float = 0.0, hint: str = ""
    ) -> None:
        super().__init__(message, host=host, hint=hint)
        self.stage = stage
        self.elapsed_s = elapsed_s


class ToolMissing(Fault, LookupError):
    """A program or capability that the worker was expected to have is not there."""

    def __init__(
        self, message: str, *, host: str = "", tool: str = "", wanted: str = "", found: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, host=host, hint=hint)
        self.tool = tool
        self.wanted = wanted
        self.found = found


class VersionMismatch(Fault):
    """rch-wkr there speaks another protocol version; the message names both."""

    def __init__(self, message: str, *, host: str = "", ours: str = "", theirs: str = "", hint: str = "") -> None:
        super().__init__(message, host=host, hint=hint)
        self.ours = ours
        self.theirs = theirs


class TransferFault(Fault, OSError):
    """Files did not get across; ``direction`` is push or return."""

    def __init__(
        self,
        message: str,
        *,
        host: str = "",
        direction: str = "push",
        path: str = "",
        bytes_done: int = 0,
        hint: str = "",
    ) -> None:
        super().__init__(message, host=host, hint=hint)
        self.direction = direction
        self.path = path
        self.bytes_done = bytes_done


class WorkerFault(Fault):
    """The worker answered an operation with an error; ``code`` is the worker's own closed error code."""

    def __init__(self, message: str, *, host: str = "", operation: str = "", code: str = "", hint: str = "") -> None:
        super().__init__(message, host=host, hint=hint)
        self.operation = operation
        self.code = code


class DiskFull(Fault, OSError):
    """No space left; ``host`` is "here" for this machine."""

    def __init__(self, message: str, *, host: str = "", path: str = "", hint: str = "") -> None:
        super().__init__(message, host=host, hint=hint)
        self.path = path


class JobLost(Fault):
    """The job has no exit status and its supervisor is gone."""

    def __init__(self, message: str, *, host: str = "", job: str = "", hint: str = "") -> None:
        super().__init__(message, host=host, hint=hint)
        self.job = job


class HostileAnswer(Fault):
    """What the worker sent breaks a rule (escape, lying hash, endless stream); nothing was placed."""

    def __init__(self, message: str, *, host: str = "", path: str = "", hint: str = "") -> None:
        super().__init__(message, host=host, hint=hint)
        self.path = path


class NotOffloadable(RchError):
    """The command cannot go out now: local with this reason, or 103 where remote is required.

    ``code`` is one of :data:`rch.schedule.reasons.REASONS`; ``workers`` maps worker name to its one reason.
    """

    exit_status = 103

    def __init__(self, message: str, *, code: str, workers: dict[str, str] | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.workers = workers or {}


class ProductsUnverified(RchError):
    """The build ended, its files did not arrive whole; ``paths`` are the missing ones."""

    exit_status = 102

    def __init__(self, message: str, *, paths: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.paths = paths


class Provisioning(RchError):
    """A playbook did not come to its end; ``host`` is the first machine that stopped it, ``task`` what it was at."""

    exit_status = 5

    def __init__(self, message: str, *, host: str = "", task: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.host = host
        self.task = task


class NoSuchJob(RchError, LookupError):
    """No job of that id is known here."""

    exit_status = 6


class Refused(RchError):
    """Refused before anything was sent (a gate, a key with the wrong mode)."""

    exit_status = 3
