"""One playbook over the inventory, through ansible-runner: what it did, what it would do, who stopped it.

ansible-runner adds 0.7 s to a run; it is for the fleet, never on the path of a command.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rch.errors import Provisioning
from rch.fleet.playbooks import ansible_environment, control_directory, playbook
from rch.fleet.processes import descendants, stop
from rch.paths import AbsPath

KEPT_RUNS = 10
"""Runs whose output stays in ``<state>/ansible/artifacts``."""

IDLE_S = 1800
"""Seconds without a word from Ansible: a package manager behind a slow mirror is silent for long, never for that."""

RUN_S = 4 * 3600
"""Seconds for one playbook over the whole fleet."""

_DETAIL = 100
"""Columns of one value in a plan."""


@dataclass(frozen=True)
class Change:
    """Something that was changed on *host*, or would be in check mode; ``detail`` is "old → new", or empty."""

    host: str
    role: str
    what: str
    detail: str = ""


@dataclass(frozen=True)
class Failure:
    """What stopped *host*: the module's own message, on one line."""

    host: str
    task: str
    message: str
    unreachable: bool = False


@dataclass
class Progress:
    """Where a run is, for whoever shows it: counts over all hosts so far."""

    playbook: str
    host_names: set[str] = field(default_factory=set)
    role: str = ""
    task: str = ""
    ok: int = 0
    changed: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a run came to. hosts: host -> its counts (ok, changed, failures, dark, …); log: all that Ansible said."""

    playbook: str
    status: str
    hosts: Mapping[str, Mapping[str, int]]
    changes: Sequence[Change]
    failures: Sequence[Failure]
    seconds: float
    log: str

    def count(self, name: str) -> int:
        """The sum of one count over all hosts."""
        return sum(counts.get(name, 0) for counts in self.hosts.values())

    def came_through(self, host: str) -> bool:
        """True when *host* was reached and nothing failed there."""
        counts = self.hosts.get(host, {})
        return bool(counts.get("ok")) and not counts.get("failures") and not counts.get("dark")

    def as_json(self) -> dict[str, Any]:
        return {
            "playbook": self.playbook,
            "status": self.status,
            "seconds": round(self.seconds, 1),
            "hosts": {name: dict(counts) for name, counts in self.hosts.items()},
            "changes": [vars(change) for change in self.changes],
            "failures": [vars(failure) for failure in self.failures],
            "log": self.log,
        }

    def check(self) -> None:
        """Raise Provisioning unless every host came to the end; one line that names the host and the remedy."""
        if self.status == "successful":
            return
        if not self.failures:
            what = {"timeout": f"took over {RUN_S} s or was silent for {IDLE_S} s", "canceled": "was interrupted"}
            text = what.get(self.status, "") or last_error(self.log) or "failed"
            raise Provisioning(f"playbook {self.playbook} {text}", hint=f"less {shlex.quote(self.log)}")
        first = self.failures[0]
        others = [failure.host for failure in self.failures[1:]]
        tail = f" (and {', '.join(others)})" if others else ""
        message, remedy = _remedy(first, self.playbook)
        named = message if message.startswith(f"{first.host}:") else f"{first.host}: {message}"
        raise Provisioning(named + tail, host=first.host, task=first.task, hint=remedy)


def run_playbook(
    name: str,
    *,
    state: AbsPath,
    inventory: str,
    limit: Sequence[str] = (),
    check: bool = False,
    variables: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    become_password: str | None = None,
    root: str = "",
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_text: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run playbook *name* over *inventory*; hosts that fail are in the outcome, nothing is raised for them.

    check: change nothing, say what would change. root: another checkout's playbooks. on_text gets what Ansible says,
    as it comes. SIGINT and SIGTERM end the run, with all of Ansible's children, within about a second; the status of
    the outcome is then ``canceled``. Raises UsageError where there is no such playbook.
    """
    import ansible_runner  # 70 ms, and only here

    path = playbook(name, root)
    home = os.path.join(state, "ansible")
    settings = os.path.join(home, "env", "settings")
    os.makedirs(os.path.dirname(settings), mode=0o700, exist_ok=True)
    with open(settings, "w", encoding="ascii") as file:
        # Given as an argument these would be dropped: suppress_env_files makes the runner look for the file alone.
        json.dump({"idle_timeout": IDLE_S, "pexpect_timeout": 1}, file)
    seen = _Events(name, on_progress, on_text)
    started = time.monotonic()
    with _interruptible() as interrupted, control_directory(home) as control:
        environment = {
            **ansible_environment(home, root),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": control,
            "RCH_STATE_DIR": state,
        }
        ended = ansible_runner.run(
            private_data_dir=home,
            ident=f"{time.strftime('%Y%m%dT%H%M%S')}-{name}-{secrets.token_hex(3)}",
            playbook=path,
            inventory=inventory,
            cmdline=shlex.join(_options(limit, tags, check=check)),
            extravars=dict(variables or {}),
            envvars=environment,
            passwords={r"(?i)^BECOME password.*:\s*$": become_password} if become_password is not None else None,
            suppress_env_files=True,
            rotate_artifacts=KEPT_RUNS,
            quiet=True,
            timeout=RUN_S,
            event_handler=seen,
            cancel_callback=interrupted,
        )
    log = os.path.join(ended.config.artifact_dir, "stdout")
    return Outcome(
        playbook=name,
        status=str(ended.status),
        hosts=seen.hosts,
        changes=tuple(seen.changes),
        failures=tuple(seen.failures()),
        seconds=time.monotonic() - started,
        log=log,
    )


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """A function that the runner asks once a second: True after SIGINT or SIGTERM, with Ansible's forks ended first.

    The runner would kill ansible-playbook and its group alone.
    """
    came = threading.Event()
    before = descendants([os.getpid()])
    ours = threading.current_thread() is threading.main_thread()
    held = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if ours else {}
    for number in held:
        signal.signal(number, lambda *_: came.set())

    def asked() -> bool:
        if came.is_set():
            stop(descendants([os.getpid()]) - before, grace_s=0)
        return came.is_set()

    try:
        yield asked
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)


def _options(limit: Sequence[str], tags: Sequence[str], *, check: bool) -> list[str]:
    words = ["--check", "--diff"] if check else []
    if limit:
        # The workstation's own play is part of every playbook.
        words += ["--limit", ",".join([*limit, "localhost"])]
    if tags:
        words += ["--tags", ",".join(tags)]
    return words


class _Events:
    """Keeps what a run's events say. True is answered always: else the runner forgets the event."""

    def __init__(self, name: str, on_progress: Callable[[Progress], None], on_text: Callable[[str], None]) -> None:
        self.progress = Progress(name)
        self.hosts: dict[str, dict[str, int]] = {}
        self.changes: list[Change] = []
        self._failed: dict[str, Failure] = {}
        self._tell = on_progress
        self._say = on_text

    def __call__(self, event: Mapping[str, Any]) -> bool:
        kind = str(event.get("event", ""))
        data = event.get("event_data")
        if event.get("stdout"):
            self._say(str(event["stdout"]))
        if isinstance(data, Mapping):
            handler = getattr(self, f"_{kind}", None)
            if handler is not None:
                handler(data)
                self._tell(self.progress)
        return True

    def failures(self) -> list[Failure]:
        """Hosts that did not come to the end; one whose failed task was rescued did."""
        stopped = [name for name, counts in self.hosts.items() if counts.get("failures") or counts.get("dark")]
        known = [self._failed[name] for name in stopped if name in self._failed]
        # Without statistics (the run was cut short) every failure counts.
        return known if self.hosts else list(self._failed.values())

    def _playbook_on_task_start(self, data: Mapping[str, Any]) -> None:
        self.progress.role = str(data.get("role") or "")
        self.progress.task = _sentence(data)

    def _runner_on_ok(self, data: Mapping[str, Any]) -> None:
        result = _mapping(data.get("res"))
        host = str(data.get("host", ""))
        self.progress.host_names.add(host)
        self.progress.ok += 1
        if result.get("changed"):
            self.progress.changed += 1
            self.changes.append(Change(host, str(data.get("role") or ""), _sentence(data), _detail(result)))

    def _runner_on_failed(self, data: Mapping[str, Any]) -> None:
        if data.get("ignore_errors"):
            return
        self.progress.failed += 1
        host = str(data.get("host", ""))
        self._failed[host] = Failure(host, _sentence(data), _message(_mapping(data.get("res"))))

    def _runner_on_unreachable(self, data: Mapping[str, Any]) -> None:
        self.progress.failed += 1
        host = str(data.get("host", ""))
        message = _message(_mapping(data.get("res")))
        self._failed[host] = Failure(host, _sentence(data), message, unreachable=True)

    def _playbook_on_stats(self, data: Mapping[str, Any]) -> None:
        for count in ("ok", "changed", "failures", "dark", "skipped", "rescued", "ignored"):
            for host, value in _mapping(data.get(count)).items():
                self.hosts.setdefault(str(host), {})[count] = int(value)


def _sentence(data: Mapping[str, Any]) -> str:
    """The task's name without the role and the file that stand before it."""
    return str(data.get("task") or "").rsplit(" | ", maxsplit=1)[-1]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _detail(result: Mapping[str, Any]) -> str:
    """What became of what, out of a module's diff: "old → new", at most two."""
    rows = [result, *(one for one in result.get("results") or () if isinstance(one, Mapping) and one.get("changed"))]
    found: list[str] = []
    for row in rows:
        diffs = row.get("diff")
        for diff in diffs if isinstance(diffs, list) else [diffs]:
            text = _difference(_mapping(diff))
            if text and text not in found:
                found.append(text)
    if not found and isinstance(result.get("msg"), str):
        return _short(result["msg"])
    return "; ".join(found[:2]) + (f" and {len(found) - 2} more" if len(found) > 2 else "")


def _difference(diff: Mapping[str, Any]) -> str:
    before, after = diff.get("before"), diff.get("after")
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        changed = [key for key in after if key != "path" and before.get(key) != after[key]]
        path = after.get("path") or before.get("path") or ""
        pairs = ", ".join(f"{key} {_short(before.get(key, 'none'))} → {_short(after[key])}" for key in changed)
        return f"{path}: {pairs}" if path and pairs else pairs or str(path)
    where = diff.get("after_header") or diff.get("before_header") or ""
    where = where.partition(" (")[0] if isinstance(where, str) else ""
    if isinstance(before, str) and isinstance(after, str) and (before or after):
        if "\n" not in before.strip() and "\n" not in after.strip():
            return f"{where}: {_short(before) or 'nothing'} → {_short(after)}".lstrip(": ")
        lines = len(set(after.splitlines()) ^ set(before.splitlines()))
        return f"{where or 'a file'}: {lines} lines differ" if before else f"{where or 'a file'} is new"
    return where


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _DETAIL else text[: _DETAIL - 3] + "..."


def _message(result: Mapping[str, Any]) -> str:
    """What a module says is wrong: its message, with the last line of a command's stderr where there is one."""
    found = result.get("msg")
    message = " ".join(str(found if found is not None else result.get("exception") or "failed").split())
    failed = [one for one in result.get("results") or () if isinstance(one, Mapping) and one.get("failed")]
    if failed:
        return _message(failed[0])
    lines = [line.strip() for line in str(result.get("stderr") or "").splitlines() if line.strip()]
    if lines and lines[-1] not in message:
        message = f"{message.rstrip('.')}: {lines[-1]}"
    return message


_SSH = (
    (r"(?i)permission denied", "check ansible_user and ansible_ssh_private_key_file of {host}, or: ssh-add"),
    (r"(?i)host key verification failed|no .* host key is known", "ssh {host} once, and compare the fingerprint"),
    (r"(?i)could not resolve", "correct ansible_host of {host} in the inventory"),
    (r"", "ssh {host}, or take it out: rch workers remove {host}"),
)


def _remedy(failure: Failure, name: str) -> tuple[str, str]:
    """The message without its remedy, and the remedy: what the message itself names behind "next:", else ours."""
    message, found, remedy = failure.message.partition("; next: ")
    if found:
        # "…; next: do this. Nothing was changed on it." is what the preflight says.
        remedy, _, rest = remedy.partition(". ")
        return (f"{message}. {rest}" if rest else message).rstrip("."), remedy.rstrip(".")
    if failure.unreachable:
        message = re.sub(r"^Failed to connect to the host via ssh: ", "", message)
        hint = next(text for pattern, text in _SSH if re.search(pattern, message))
        return f"cannot be reached: {message}", hint.format(host=failure.host)
    if "Nothing was changed" in message:
        return message.rstrip("."), "rch inventory show"
    verb = {"site": "apply", "workers": "apply"}.get(name, name)
    return f"{failure.task}: {message}", f"rch fleet {verb} --limit {failure.host} -v"


def last_error(log: str) -> str:
    """The line in which Ansible itself says why it did not begin."""
    try:
        with open(log, encoding="utf-8", errors="replace") as stream:
            lines = [line.strip() for line in stream if re.match(r"\[?ERROR", line)]
    except OSError:
        return ""
    return re.sub(r"^\[?ERROR\]?:?\s*!?\s*", "did not begin: ", lines[0])[:400] if lines else ""
