"""What executors share whose worker answers over one control channel: rch-wkr behind SSH, and rch-wkr as a child."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from rch.errors import Unreachable
from rch.execute.channel import Answer, Channel
from rch.execute.executor import BulkSettings, Hello
from rch.execute.handshake import Clock
from rch.fleet.model import Worker


class OverChannel:
    """The control plane of one worker; who derives from it opens the channel, greets, and moves files."""

    def __init__(self, worker: Worker, client: str) -> None:
        self.bulk = BulkSettings()
        self._worker = worker
        self._client = client
        self._lock = threading.Lock()
        self._channel: Channel | None = None
        self._hello: Hello | None = None
        self._clock = Clock()

    @property
    def worker(self) -> Worker:
        return self._worker

    @property
    def channel(self) -> Channel | None:
        """The control channel, for counters and pings; None before connect and after its end."""
        channel = self._channel
        return channel if channel is not None and channel.ended is None else None

    @property
    def connected(self) -> bool:
        return self.channel is not None and self._hello is not None

    def request(
        self, op: str, fields: Mapping[str, Any] | None = None, body: bytes = b"", *, timeout_s: float = 30.0
    ) -> Answer:
        channel = self.channel
        if channel is None:
            raise Unreachable(f"{self._worker.name}: not connected", host=self._worker.name, stage="request")
        if op == "ping":
            return self._clock.ping(channel, timeout_s)
        return channel.request(op, fields, body, timeout_s=timeout_s)

    def clock_offset_ns(self) -> int:
        return self._clock.offset_ns
