"""rchd itself: what one daemon owns, and what its API answers."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import structlog
from aiohttp import web

from rch import __version__
from rch.config import load_config
from rch.config.places import Places
from rch.daemon import places as rooms
from rch.daemon.api import make_app
from rch.daemon.collecting import Collector
from rch.daemon.desk import Desk
from rch.daemon.hooks import Hooks
from rch.daemon.http_hook import HttpHook
from rch.daemon.joblog import JobLog
from rch.daemon.measure import Measurer
from rch.daemon.peer import Peer, peer_of
from rch.daemon.pool import Member, Pool
from rch.daemon.spool import SpoolServer
from rch.daemon.store import FINAL, Job, Store
from rch.daemon.wire import SocketTransport, Transport, read_request
from rch.errors import NoSuchJob, RchError, UsageError
from rch.execute.executor import Executor
from rch.fleet.model import Worker
from rch.paths import AbsPath
from rch.transfer import roll_forward

_log = structlog.get_logger("rchd")

STOP_S = 10.0
"""rchd is gone within this time after a stop; jobs go on (coverage C-13)."""


def _set_once(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def inherited_socket() -> socket.socket | None:
    """The listening Unix socket that systemd hands over as descriptor 3; see sd_listen_fds(3)."""
    told = {name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if told["LISTEN_PID"] != str(os.getpid()) or not told["LISTEN_FDS"].isdigit() or int(told["LISTEN_FDS"]) < 1:
        return None
    given = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    if given.family != socket.AF_UNIX or given.type != socket.SOCK_STREAM:
        given.close()
        return None
    return given


def traffic(executor: Executor) -> dict[str, int]:
    """Counters of the control channel since it is open: requests, sent_bytes, received_bytes. {} without a channel."""
    channel = getattr(executor, "channel", None)
    return asdict(channel.traffic) if channel is not None else {}


class AlreadyRunning(RchError):
    """Another rchd holds the lock of this state directory."""


class Rchd:
    """One daemon: lock, store, pool, sockets. ``run`` returns when it has been stopped.

    make_executor: for tests, see :class:`Pool`.
    """

    def __init__(self, places: Places, *, make_executor: Callable[[Worker], Executor] | None = None) -> None:
        self.places = places
        rooms.make_directories(places)
        self._lock_fd = self._take_lock()
        self.started = time.time()
        self.instance = os.urandom(8).hex()
        self.store = Store(AbsPath(os.path.join(places.state, "rch.db")))
        config = load_config("/", dict(os.environ), state_dir=places.state)
        self._socket = config.socket_path
        inventory = os.environ.get("RCH_INVENTORY")
        self.pool = Pool(
            places.state,
            places.run,
            rooms.client_id(places),
            inventory=AbsPath(inventory) if inventory else None,
            make_executor=make_executor,
            heartbeat_s=float(config.daemon.heartbeat_interval_sec),
        )
        self._measurer = Measurer(
            places.state, self.store, self.pool, interval_s=config.daemon.benchmark_interval_hours * 3600.0
        )
        self.desk = Desk(places, self.store, self.pool)
        self.collector = Collector(places, self.store, self.pool)
        self.hooks = Hooks(places)
        port = config.interception.http_hook_port
        self._http_hook = HttpHook(port, places.state, self.hooks) if port else None
        self.inherited = False
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until stopped."""
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.request_stop, 0.0)
        for done in await asyncio.to_thread(roll_forward, self.places.state):
            _log.info("placement rolled forward", root=done.root, job=done.job, complete=done.complete, why=done.why)
        self.pool.start()
        self.collector.start()
        self._measurer.start()
        # max_field_size: a hook tells its PATH in a header
        runner = web.AppRunner(make_app(self), access_log=None, max_field_size=128 * 1024)
        await runner.setup()
        assert runner.server is not None
        listener = self._listen()
        spool = SpoolServer(rooms.spool_dir(self.places), self._serve_spooled)
        spool.start()
        accepting = asyncio.create_task(self._accept(listener, runner))
        if self._http_hook is not None:
            await self._http_hook.start()
        await asyncio.to_thread(self.desk.adopt_unfinished)
        _log.info("started", pid=os.getpid(), version=__version__, socket=self.places.socket)
        await self._stopping.wait()
        _log.info("stopping")
        if not self.inherited:
            for path in {self.places.socket, self._socket}:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        accepting.cancel()
        if self._http_hook is not None:
            await self._http_hook.stop()
        listener.close()
        spool.stop()
        self.collector.stop()
        self._measurer.stop()
        await asyncio.to_thread(self.desk.stop)
        await asyncio.wait_for(runner.cleanup(), STOP_S / 2)
        await asyncio.to_thread(self.pool.stop)
        self.store.close()
        os.close(self._lock_fd)
        _log.info("stopped")

    def request_stop(self, wait_s: float = 0.0) -> None:
        """Stop soon; with *wait_s*, short jobs may end first."""
        if self._loop is None or self._stopping is None:
            return
        if wait_s > 0 and self.desk.running():
            self._loop.call_later(min(wait_s, 0.5), self.request_stop, wait_s - 0.5)
            return
        self._stopping.set()

    def _take_lock(self) -> int:
        fd = os.open(os.path.join(self.places.state, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 64).decode("ascii", "replace").strip()
            os.close(fd)
            raise AlreadyRunning(
                f"rchd is already running (pid {holder or 'unknown'}) on {self.places.state}", hint="rch daemon status"
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        return fd

    def _listen(self) -> socket.socket:
        given = inherited_socket()
        if given is not None:
            # The user manager made it, listens on it and keeps it when we end (roles/workstation, rchd.socket).
            self.inherited = True
            self._link(str(given.getsockname()))
            given.setblocking(False)
            return given
        for path in {self.places.socket, self._socket}:
            rooms.make_room_for_socket(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        old = os.umask(0o177)
        try:
            listener.bind(self._socket)
        finally:
            os.umask(old)
        self._link(self._socket)
        listener.listen(128)
        listener.setblocking(False)
        return listener

    def _link(self, socket_path: str) -> None:
        """Clients know the run directory, not the configuration."""
        if socket_path != self.places.socket:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.places.socket)
            os.symlink(socket_path, self.places.socket)

    async def _accept(self, listener: socket.socket, runner: web.AppRunner) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            task = loop.create_task(self._dispatch(connection, runner))
            task.add_done_callback(lambda t: t.cancelled() or t.exception())

    async def _dispatch(self, connection: socket.socket, runner: web.AppRunner) -> None:
        """``POST /v1/exec`` becomes frames in a thread of its own; everything else is aiohttp's."""
        loop = asyncio.get_running_loop()
        try:
            (_, uid, _) = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid not in (os.getuid(), 0):
                connection.close()
                return
            head = await asyncio.wait_for(self._peek(connection), 10)
        except (OSError, TimeoutError):
            connection.close()
            return
        if head.startswith(b"POST /v1/exec "):
            connection.setblocking(True)
            threading.Thread(target=self._serve_exec, args=(connection,), name="exec", daemon=True).start()
        else:
            assert runner.server is not None
            await loop.connect_accepted_socket(runner.server, connection)

    async def _peek(self, connection: socket.socket) -> bytes:
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(connection, _set_once, readable)
        try:
            await readable
        finally:
            loop.remove_reader(connection)
        return connection.recv(64, socket.MSG_PEEK)

    def _serve_exec(self, connection: socket.socket) -> None:
        peer = peer_of(connection)
        transport = SocketTransport(connection)
        try:
            request = read_request(transport)
        except (OSError, ValueError) as error:
            _log.info("request refused", why=str(error))
            transport.close()
            return
        self.desk.serve(transport, request, peer)

    def _serve_spooled(self, transport: Transport, request: dict[str, Any]) -> None:
        self.desk.serve(transport, request, Peer())

    # -- answers of the API (called in threads) -----------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Alive, which one, and since when."""
        by = "systemd" if self.inherited else "itself"
        return {"ok": True, "version": __version__, "instance": self.instance, "pid": os.getpid(), "socket_by": by}

    def status(self) -> dict[str, Any]:
        """`rch status --json` (coverage C-20)."""
        jobs = self.store.jobs(limit=500)
        active = [j for j in jobs if j.state not in FINAL]
        midnight = time.time() - (time.time() - time.timezone) % 86400
        today = [j for j in jobs if j.times.get("created", 0) >= midnight]
        return {
            "version": __version__,
            "pid": os.getpid(),
            "instance": self.instance,
            "uptime_seconds": round(time.time() - self.started, 1),
            "active_compilations": len(active),
            "total_compilations": sum(self.store.count_jobs().values()),
            "today": {
                "builds": len(today),
                "remote": sum(j.worker not in ("", "here") for j in today),
                "cpu_seconds": round(sum(j.times.get("cpu_s", 0.0) for j in today if j.worker != "here"), 1),
            },
            "registry_error": self.pool.registry_error,
            "workers": [self._worker(m, active) for m in self.pool.members()],
            "jobs": [j.shown() for j in active],
            "metrics": {"jobs_by_state": self.store.count_jobs()},
        }

    def workers(self) -> list[dict[str, Any]]:
        """All workers, the objects of design.md 6.1."""
        active = self.store.unfinished()
        return [self._worker(m, active) for m in self.pool.members()]

    def jobs(self, limit: int = 200) -> list[dict[str, Any]]:
        """Newest first."""
        return [j.shown() for j in self.store.jobs(limit=limit)]

    def job(self, job_id: str) -> dict[str, Any]:
        """One job."""
        return self._job(job_id).shown()

    def read_log(self, job_id: str, offset: int, wait_s: float) -> tuple[bytes, int, bool]:
        """Whole frames from *offset*, the offset after them, and whether that is the end."""
        job = self._job(job_id)
        log = self.desk.log_of(job.id) or JobLog(rooms.job_dir(self.places, job.id))
        ended = job.state in FINAL
        data = log.read(offset, wait_s=0.0 if ended else wait_s)
        ended = ended or self._job(job_id).state in FINAL
        return data, offset + len(data), ended and offset + len(data) >= log.size

    def signal_job(self, job_id: str, name: str) -> dict[str, Any]:
        """Send a signal, or ``cancel``."""
        job = self._job(job_id)
        if job.state in FINAL:
            return {"job": job.id, "state": job.state, "signalled": False}
        self.desk.signal(job, name)
        return {"job": job.id, "state": job.state, "signalled": True}

    def fetch_job(self, job_id: str) -> dict[str, Any]:
        """Complete the return of an undelivered job."""
        return self.desk.fetch(self._job(job_id)).shown()

    def probe(self, name: str) -> dict[str, Any]:
        """Look at one worker over both planes, on a connection of its own; the next choice knows what was found."""
        found = self.desk.probe(self._member(name))
        self.pool.refresh()
        return found

    def switch(self, name: str, verb: str) -> dict[str, Any]:
        """``drain``, ``disable`` or ``enable``."""
        member = self._member(name)
        self.store.set_switch(member.worker.name, "" if verb == "enable" else verb)
        return self._worker(member, self.store.unfinished())

    def forget_unportable(self) -> dict[str, Any]:
        """Try every project on every class of worker again."""
        return {"forgotten": self.desk.forget_unportable()}

    def refresh(self) -> dict[str, Any]:
        """Take over the inventory and the facts as they are now."""
        self.pool.refresh()
        return {"workers": [m.worker.name for m in self.pool.members()], "error": self.pool.registry_error}

    def _job(self, job_id: str) -> Job:
        job = self.store.job(job_id)
        if job is None:
            raise NoSuchJob(f"no job {job_id} is known here", hint="rch jobs")
        return job

    def _member(self, name: str) -> Member:
        if not self.pool.members():
            self.pool.load()  # started a moment ago: the watch thread has not read the inventory yet
        member = self.pool.member(name)
        if member is None:
            known = ", ".join(m.worker.name for m in self.pool.members()) or "none"
            raise UsageError(f"no worker {name} in the inventory (known: {known})", what=name)
        return member

    def _worker(self, member: Member, active: list[Job]) -> dict[str, Any]:
        views = self.pool.views(self.store.switches(), lambda _: None)
        view = next(v for v in views if v.name == member.worker.name)
        jobs = [j.shown() for j in active if j.worker == member.worker.name]
        heartbeat = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(member.last_heartbeat))
        return {
            "name": view.name,
            "host": member.worker.declared.host,
            "state": "unknown" if member.state == "unknown" and view.state == "healthy" else view.state,
            "reason": view.state_reason or member.reason,
            "slots_total": view.slots_total,
            "slots_used": max(view.slots_used, sum(int(j["slots"]) for j in jobs if j["state"] == "running")),
            "speed_score": view.speed_score,
            "tags": list(view.tags),
            "toolchains": dict(view.tools_shown),
            "last_heartbeat": heartbeat if member.last_heartbeat else None,
            "clock_offset_ms": round(view.clock_ns / 1e6, 1),
            "traffic": traffic(member.executor),
            "active_jobs": jobs,
        }
