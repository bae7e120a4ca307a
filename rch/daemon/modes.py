"""RCH_MODE=local and mock: a full job without a remote worker (checklist M1, M4).

``local`` is this machine behind the same agent, sandbox and return; ``mock`` a worker in memory. Neither is in the
inventory, neither is ever chosen by itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

from rch.daemon.pool import Member
from rch.execute.executor import Executor
from rch.execute.local import LocalExecutor
from rch.execute.mock import FaultPlan, MockExecutor
from rch.fleet.model import Declared, Observed, Worker
from rch.paths import AbsPath
from rch.project.model import Project
from rch.schedule.choose import WorkerView

MODES = frozenset({"local", "mock"})


class Modes:
    """The members that a mode names, made when first asked for."""

    def __init__(self, state_dir: AbsPath, client: str) -> None:
        self._state_dir = state_dir
        self._client = client
        self._lock = threading.Lock()
        self._members: dict[str, Member] = {}

    def member(self, mode: str, env: Mapping[str, str]) -> Member:
        """The member of *mode*; *env* gives the mock its seed and failure rate."""
        key = mode if mode == "local" else f"mock {env.get('RCH_MOCK_SEED', '')} {env.get('RCH_MOCK_FAILURE_RATE', '')}"
        with self._lock:
            if key not in self._members:
                worker = Worker(Declared(mode, "localhost", executor=mode), Observed())
                self._members[key] = Member(worker, self._executor(mode, worker, env))
            return self._members[key]

    def close(self) -> None:
        """End the child of ``local``; its jobs go on under their supervisors."""
        for member in self._members.values():
            member.executor.close()

    def _executor(self, mode: str, worker: Worker, env: Mapping[str, str]) -> Executor:
        if mode == "local":
            directory = AbsPath(os.path.join(self._state_dir, "local-worker", "here"))
            return LocalExecutor(worker, directory=directory, client=self._client)
        rate = env.get("RCH_MOCK_FAILURE_RATE", "")
        plan = FaultPlan(seed=int(env.get("RCH_MOCK_SEED") or 0), rate=float(rate) if rate else 0.0)
        return MockExecutor(worker, plan=plan)


def view_of(member: Member) -> WorkerView:
    """What the lease needs to know of it; it is not compared with anything, and says nothing about any class."""
    return WorkerView(member.worker.name, slots_total=member.hello.slots_total if member.hello else 1)


def facts_for(member: Member, project: Project) -> Mapping[str, object]:
    """Facts for the spec: on this machine every toolchain lies where the caller has it."""
    if member.worker.declared.executor != "local":
        return member.worker.observed.facts
    rows: dict[str, list[dict[str, object]]] = {}
    for tool in project.tools:
        binds = {path: path for path in tool.binds}
        rows.setdefault(tool.tool.value, []).append({"identity": tool.identity, "binds": binds})
    return {"toolchains": rows}
