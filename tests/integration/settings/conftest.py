"""A workstation with three workers on this machine: real rchd, rch-wkr, sandbox and return, no sshd.

a has two slots, b and c one each; b comes first by priority; a and c are in group heavy; scores are 50, 80 and none.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rch.testing.lab import stop_daemons
from rch.worker.identity import rust_identity

INVENTORY = """\
all:
  children:
    rch_workers:
      vars: {ansible_connection: local, rch_executor: local}
      hosts:
        a: {rch_slots: 2, rch_priority: 50}
        b: {rch_slots: 1, rch_priority: 90}
        c: {rch_slots: 1, rch_priority: 10}
    heavy: {hosts: {a: {}, c: {}}}
"""

BIN = os.path.dirname(sys.executable)


class Ended:
    """How one ``rch exec`` ended. ``where``: the worker, or "here"; ``reason``: why it ran here."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out = status, out
        *lines, last = err.splitlines() or [""]
        end: dict[str, Any] = {}
        if last.startswith('{"'):
            end = json.loads(last)
            err = "".join(line + "\n" for line in lines)
        self.err = err
        self.where: str = end.get("where", "")
        self.reason: str = end.get("reason", "")
        self.job: str = end.get("job", "")


class Here:
    """One workstation; ``project`` is an empty directory of the test's own."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.state = top / "s"
        self.config = top / "config" / "rch" / "config.toml"
        self.inventory = top / "inventory"
        self.project = top / "project"
        for path in (self.state, self.config.parent, self.inventory):
            path.mkdir(parents=True, mode=0o700)
        (self.inventory / "hosts.yml").write_text(INVENTORY)
        self.env = {
            **{
                n: v
                for n, v in os.environ.items()
                if not n.startswith(("RCH_", "PYTEST_", "COV_")) and n not in COLOURS
            },
            "XDG_CONFIG_HOME": str(top / "config"),
            "RCH_STATE_DIR": str(self.state),
            "RCH_INVENTORY": str(self.inventory),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }
        facts = subprocess.run(
            [sys.executable, "-m", "rch.worker", "facts"], capture_output=True, check=True, timeout=60
        )
        rustc = rust_identity(shutil.which("rustc") or "rustc")
        (self.state / "facts").mkdir()
        for name, score in (("a", 50), ("b", 80), ("c", None)):
            found = {**json.loads(facts.stdout), "speed_score": score}
            found["toolchains"]["rust"] = [{"identity": rustc, "binds": {}}]
            (self.state / "facts" / f"{name}.json").write_text(json.dumps(found))

    def user(self, text: str) -> None:
        """The user's file from now on."""
        _write(self.config, text)

    def write_project(self, text: str, *, trusted: bool = False) -> None:
        """The project's file from now on."""
        _write(self.project / ".rch" / "config.toml", text)
        if trusted:
            assert self.run("rch", "config", "trust").returncode == 0

    def makefile(self, *recipe: str) -> None:
        """What `make` runs."""
        (self.project / "Makefile").write_text("all:\n" + "".join(f"\t@{line}\n" for line in recipe))

    def run(
        self, *words: str, env: Mapping[str, str] | None = None, data: str = "", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, capture_output=True, text=True, input=data, timeout=120, check=False,
            cwd=cwd or self.project, env={**self.env, **(env or {})},
        )  # fmt: skip

    def exec(
        self,
        *command: str,
        options: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        data: str = "",
    ) -> Ended:
        """``rch exec --json [options] -- command``."""
        ended = self.run("rch", "exec", "--json", *options, "--", *command, env=env, cwd=cwd, data=data)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def on(self, worker: str, *command: str, **how: Any) -> Ended:
        """A free command on *worker*."""
        return self.exec(*command, options=("--worker", worker, *how.pop("options", ())), **how)

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("rch", "jobs", "--json").stdout)
        return found

    def job(self, ended: Ended) -> dict[str, Any]:
        """The job object of a command that went out."""
        found: dict[str, Any] = next(job for job in self.jobs() if job["id"] == ended.job)
        return found

    def start(self) -> None:
        """rchd, with the patience of a person: a command would run here after five seconds on a busy machine."""
        for _ in range(4):  # 30 s each
            started = self.run("rch", "daemon", "start", cwd=self.top)
            if started.returncode == 0:
                return
        raise AssertionError(started.stderr)

    def stop(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.run("rch", "daemon", "stop", cwd=self.top)

    def close(self) -> None:
        """No rchd and no file is left, whatever has happened."""
        self.stop()
        stop_daemons(str(self.top))
        shutil.rmtree(self.top, ignore_errors=True)


COLOURS = ("NO_COLOR", "COLORTERM", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "CARGO_TERM_COLOR", "GCC_COLORS")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, path)


@pytest.fixture(scope="module")
def workstation() -> Iterator[Here]:
    place = tempfile.mkdtemp(prefix="rch-k-", dir="/var/tmp")  # a short path, for sockets
    made = Here(Path(place))
    made.start()
    yield made
    made.close()


@pytest.fixture
def fresh() -> Iterator[Here]:
    """A workstation whose rchd has not been started yet."""
    place = tempfile.mkdtemp(prefix="rch-k-", dir="/var/tmp")
    made = Here(Path(place))
    made.project.mkdir()
    yield made
    made.close()


@pytest.fixture
def here(workstation: Here, request: pytest.FixtureRequest) -> Iterator[Here]:
    """The module's workstation without configuration, in an empty project."""
    workstation.project = workstation.top / "p" / request.node.name.partition("[")[0][:60]
    workstation.project.mkdir(parents=True)
    workstation.user("")
    yield workstation
    shutil.rmtree(workstation.project)
