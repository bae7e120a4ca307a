"""`rch workers probe`: look at one worker over both planes, on connections of its own (lessons HB-03, DS-11)."""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

from rch.config.places import Places
from rch.daemon.pool import Member
from rch.errors import RchError
from rch.execute.executor import Executor
from rch.execute.local import LocalExecutor
from rch.execute.ssh import SshExecutor
from rch.fleet.model import Worker
from rch.fleet.record import write_record
from rch.paths import AbsPath


def probe(member: Member, places: Places, client: str) -> dict[str, Any]:
    """One object: ``control`` and ``bulk`` planes ({ok, seconds, error, hint}), health, facts, clock offset.

    The facts that came back are kept as the worker's record, so the registry is as fresh as the probe.
    """
    worker = member.worker
    result: dict[str, Any] = {"name": worker.name, "host": worker.declared.host, "user": worker.declared.user}
    with tempfile.TemporaryDirectory(prefix="p-", dir=places.run) as directory:
        executor = executor_for(worker, AbsPath(directory), places, client)
        try:
            result["control"] = _timed(lambda: _control(executor, result))
            if result["control"]["ok"]:
                result["bulk"] = _timed(lambda: probe_bulk(executor, directory))
            else:
                result["bulk"] = {"ok": False, "error": "not tried: no control plane", "hint": ""}
        finally:
            executor.close()
    facts = result.get("facts")
    if isinstance(facts, dict):
        import json

        merged = {**member.worker.observed.facts, **facts}
        write_record(places.state, worker.name, json.dumps(merged).encode("ascii"))
    result["ok"] = bool(result["control"]["ok"] and result["bulk"]["ok"])
    return result


def executor_for(worker: Worker, run_dir: AbsPath, places: Places, client: str) -> Executor:
    """A fresh executor that shares no connection with the pool's."""
    if worker.declared.executor == "local":
        directory = os.path.join(places.state, "local-worker", worker.name)
        return LocalExecutor(worker, directory=AbsPath(directory), client=client)
    return SshExecutor(worker, run_dir=run_dir, client=client)


def _control(executor: Executor, result: dict[str, Any]) -> None:
    hello = executor.connect()
    result["version"] = hello.version
    result["protocol"] = hello.protocol
    result["python"] = hello.python
    result["slots_total"] = hello.slots_total
    result["sandbox"] = {"ok": hello.sandbox_ok, "why": hello.sandbox_why}
    for _ in range(3):
        executor.request("ping", timeout_s=5)
    result["clock_offset_ms"] = round(executor.clock_offset_ns() / 1e6, 2)
    health = executor.request("health", timeout_s=10).fields
    result["health"] = {k: v for k, v in health.items() if k not in ("ok", "jobs")}
    facts = executor.request("facts", timeout_s=60).fields.get("facts")
    if isinstance(facts, dict):
        result["facts"] = facts


def probe_bulk(executor: Executor, directory: str) -> None:
    """Send one small file, fetch it back and have it removed: a listed file that is gone here goes there."""
    source, back = os.path.join(directory, "out"), os.path.join(directory, "back")
    os.mkdir(source)
    os.mkdir(back)
    token = os.urandom(16).hex().encode()
    name = f"probe-{token[:12].decode()}"
    with open(os.path.join(source, name), "wb") as file:
        file.write(token)
    target = f"{executor.cache_dir}/caches"  # one of the places that a forced command lets rsync see
    executor.send_files(AbsPath(source), [name], target)
    executor.receive_files(target, [name], AbsPath(back), largest=1024)
    os.unlink(os.path.join(source, name))
    executor.send_files(AbsPath(source), [name], target)
    with open(os.path.join(back, name), "rb") as file:
        if file.read() != token:
            raise RchError("what came back is not what was sent")


def _timed(step: Any) -> dict[str, Any]:
    started = time.monotonic()
    try:
        step()
    except RchError as error:
        return {
            "ok": False,
            "seconds": round(time.monotonic() - started, 3),
            "error": error.message,
            "hint": error.hint,
            "class": error.label,
        }
    return {"ok": True, "seconds": round(time.monotonic() - started, 3), "error": "", "hint": ""}
