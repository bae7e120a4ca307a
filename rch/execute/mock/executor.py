"""The executor over a MockWorker, and the plan of its misbehaviour."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rch.errors import TransferFault, Unreachable
from rch.execute.channel import Answer, checked
from rch.execute.executor import BulkSettings, Hello, Moved
from rch.execute.mock.worker import MockWorker, Refusal
from rch.fleet.model import Worker
from rch.paths import AbsPath
from rch.worker import protocol


@dataclass
class FaultPlan:
    """What goes wrong, deterministically.

    fail:       numbers of the operations (from 1) that end with a lost connection before they reach the worker.
    lose_answer: numbers of the operations that are carried out, but whose answer is lost.
    drop_at:    the connection ends when this many bytes have been read from job logs in all; None: never.
    latency_s:  added to every operation.
    rate, seed: share of all operations (0..1) that fail like ``fail``, drawn from the seed.
    answers:    operation name -> function that replaces the worker's answer (a hostile worker).
    offset_ns:  added to every clock reading.
    """

    fail: frozenset[int] = frozenset()
    lose_answer: frozenset[int] = frozenset()
    drop_at: int | None = None
    latency_s: float = 0.0
    rate: float = 0.0
    seed: int = 0
    answers: dict[str, Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]] = field(default_factory=dict)
    offset_ns: int = 0


class MockExecutor:
    """A simulated worker behind the executor's interface. ``calls`` records every operation in order."""

    def __init__(self, worker: Worker, mock: MockWorker | None = None, plan: FaultPlan | None = None) -> None:
        self._worker = worker
        self.bulk = BulkSettings()
        self.mock = mock or MockWorker()
        self.plan = plan or FaultPlan()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._random = random.Random(self.plan.seed)  # noqa: S311  a fault plan, not a secret
        self._lock = threading.Lock()
        self._connected = False
        self._hello: Hello | None = None
        self._read_bytes = 0
        self._offset_ns = 0

    @property
    def worker(self) -> Worker:
        return self._worker

    @property
    def cache_dir(self) -> str:
        return "/mock"

    @property
    def connected(self) -> bool:
        return self._connected

    def connect(self) -> Hello:
        with self._lock:
            if self._connected and self._hello is not None:
                return self._hello
            self._connected = True
        fields = self.request("hello").fields
        sandbox = fields["sandbox"]
        self._hello = Hello(
            fields["protocol"], "mock", "mock", fields["boot_id"], fields["slots_total"], sandbox["ok"], sandbox["why"]
        )
        self._offset_ns = fields["time_ns"] + self.plan.offset_ns - time.time_ns()
        return self._hello

    def request(
        self, op: str, fields: Mapping[str, Any] | None = None, body: bytes = b"", *, timeout_s: float = 30.0
    ) -> Answer:
        given = dict(fields or {})
        number = self._enter(op, given)
        if self.plan.latency_s:
            time.sleep(min(self.plan.latency_s, timeout_s))
        try:
            answered, data = self.mock.answer(op, given, body)
            answered = {"ok": True, **answered}
        except Refusal as refusal:
            answered, data = {"ok": False, "error": refusal.code, "message": str(refusal)}, b""
        except (KeyError, TypeError, ValueError, protocol.ProtocolError) as error:
            answered, data = {"ok": False, "error": "bad-request", "message": repr(error)}, b""
        if op in self.plan.answers:
            answered, data = self.plan.answers[op](answered, data)
        if number in self.plan.lose_answer:
            self._lose("answer lost")
        if op == "read" and self.plan.drop_at is not None:
            self._read_bytes += len(data)
            if self._read_bytes > self.plan.drop_at:
                self.plan.drop_at = None
                self._lose("connection cut")
        if op == "ping" and "time_ns" in answered:
            self._offset_ns = answered["time_ns"] + self.plan.offset_ns - time.time_ns()
        return checked(Answer(answered, data), op, self._worker.name)

    def send_files(self, source: AbsPath, paths: Sequence[str], target: str) -> Moved:
        self._enter("send_files", {"paths": list(paths)})
        size = 0
        for path in paths:
            try:
                with open(os.path.join(source, path), "rb") as file:
                    self.mock.files[f"{target}/{path}"] = file.read()
            except OSError as error:
                raise TransferFault(f"{path}: {error.strerror}", host=self._worker.name, path=path) from error
            size += len(self.mock.files[f"{target}/{path}"])
        return Moved(len(paths), size, 0.0, 1 if paths else 0)

    def receive_files(self, source: str, paths: Sequence[str], target: AbsPath, *, largest: int) -> Moved:
        self._enter("receive_files", {"paths": list(paths)})
        size = 0
        root = source.removeprefix("/mock/roots/").removesuffix("/tree")
        for path in paths:
            try:
                content = self.mock.files.get(f"{source}/{path}")
                content = self.mock.content(root, path) if content is None else content
            except KeyError:
                raise TransferFault(
                    f"{path}: not there", host=self._worker.name, direction="return", path=path
                ) from None
            if len(content) > largest:
                raise TransferFault(f"{path}: too long", host=self._worker.name, direction="return", path=path)
            place = os.path.join(target, path)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                file.write(content)
            size += len(content)
        return Moved(len(paths), size, 0.0, 1 if paths else 0)

    def link_mbit_s(self) -> float | None:
        return None

    def clock_offset_ns(self) -> int:
        return self._offset_ns

    def close(self) -> None:
        if self._connected:
            self._connected = False
            self.mock.forget_connection()

    def _enter(self, op: str, fields: dict[str, Any]) -> int:
        """Count the operation; raises what the plan says for this number."""
        if not self._connected:
            raise Unreachable(f"{self._worker.name}: not connected", host=self._worker.name, stage="request")
        with self._lock:
            self.calls.append((op, fields))
            number = len(self.calls)
            unlucky = self.plan.rate > 0 and self._random.random() < self.plan.rate
        if number in self.plan.fail or unlucky:
            self._lose("connection lost")
        return number

    def _lose(self, why: str) -> None:
        self._connected = False
        self.mock.forget_connection()
        raise Unreachable(f"{self._worker.name}: {why}", host=self._worker.name, stage="request")
