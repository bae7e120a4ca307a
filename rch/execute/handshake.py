"""The handshake and the clock of a worker."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from rch import __version__
from rch.execute.channel import Answer, Channel
from rch.execute.executor import Hello
from rch.worker import protocol

SAMPLES = 8
"""Of this many readings the one with the shortest round trip counts: its error is at most half that trip."""


class Clock:
    """Offset of a worker's clock against ours, from the readings that its answers carry."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readings: deque[tuple[int, int]] = deque(maxlen=SAMPLES)

    @property
    def offset_ns(self) -> int:
        """Worker minus ours in ns; 0 before the first reading."""
        with self._lock:
            return min(self._readings)[1] if self._readings else 0

    def add(self, sent_ns: int, received_ns: int, worker_ns: int) -> None:
        """One reading: our clock before and after, the worker's in between. A jump drops the older readings."""
        offset = worker_ns - (sent_ns + received_ns) // 2
        trip = received_ns - sent_ns
        with self._lock:
            if self._readings and abs(offset - min(self._readings)[1]) > 10**9 + trip:
                self._readings.clear()
            self._readings.append((trip, offset))

    def ping(self, channel: Channel, timeout_s: float) -> Answer:
        """A ``ping`` whose answer is also a reading."""
        sent = time.time_ns()
        answer = channel.request("ping", timeout_s=timeout_s)
        self.read_from(answer, sent)
        return answer

    def read_from(self, answer: Answer, sent_ns: int) -> None:
        """Take the reading out of an answer that has ``time_ns``."""
        worker_ns = answer.fields.get("time_ns")
        if type(worker_ns) is int:
            self.add(sent_ns, time.time_ns(), worker_ns)


def greet(channel: Channel, client: str, clock: Clock, timeout_s: float = 15.0) -> Hello:
    """Exchange versions and abilities. The caller compares ``protocol``."""
    if channel.preface != str(protocol.PROTOCOL):
        # Another protocol may not even understand hello: the number in the preface is all we may rely on.
        number = int(channel.preface) if channel.preface.isdigit() else -1
        return Hello(number, "?", "?", "", 0, sandbox_ok=False)
    sent = time.time_ns()
    answer = channel.request(
        "hello",
        {"protocol": protocol.PROTOCOL, "client": client, "version": __version__, "compression": ["zstd", "none"]},
        timeout_s=timeout_s,
    )
    clock.read_from(answer, sent)
    if answer.fields.get("compression") == "zstd":
        channel.use_zstd()
    sandbox = answer.fields.get("sandbox")
    sandbox = sandbox if isinstance(sandbox, dict) else {}
    return Hello(
        protocol=_whole(answer.fields.get("protocol")),
        version=str(answer.fields.get("version", "")),
        build=str(answer.fields.get("build", "")),
        boot_id=str(answer.fields.get("boot_id", "")),
        slots_total=max(0, _whole(answer.fields.get("slots_total"))),
        sandbox_ok=sandbox.get("ok") is True,
        sandbox_why=" ".join(str(sandbox.get("why") or "").split())[:300],
        python=str(answer.fields.get("python", "")),
        uid=_whole(answer.fields.get("uid")),
        extra={k: v for k, v in answer.fields.items() if k != "ok"},
    )


def _whole(value: Any) -> int:
    return value if type(value) is int else -1
