"""The ``ssh`` executor: control over one kept-open Fabric connection, bulk by rsync over an OpenSSH master."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import paramiko
from fabric import Config, Connection
from paramiko.ssh_exception import IncompatiblePeer, NoValidConnectionsError

from rch.errors import RchError, ToolMissing, Unreachable, VersionMismatch
from rch.execute import deploy
from rch.execute.channel import Channel
from rch.execute.executor import Hello, Moved
from rch.execute.handshake import greet
from rch.execute.link import LinkRate
from rch.execute.over_channel import OverChannel
from rch.execute.rsync import Rsync
from rch.execute.ssh_settings import SshSettings, config_file_text, ssh_settings
from rch.fleet.model import Worker
from rch.paths import AbsPath
from rch.worker import protocol

PARAMIKOS_KEX = (
    "diffie-hellman-group1-sha1",
    "diffie-hellman-group14-sha1",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group-exchange-sha1",
    "diffie-hellman-group-exchange-sha256",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
)
"""Those of paramiko's key exchanges that ssh_settings.REFUSED_KEX names; paramiko takes no patterns."""

HANDSHAKE_S = 15.0
"""A loaded worker may need seconds to start Python; a dead one is found by the connect limit."""

STATUS_S = 2.0
"""How long the exit status of a program may come after its last output."""


class ChannelPipe:
    """A paramiko channel as the two byte streams of a control channel."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def read(self, size: int) -> bytes:
        return self._channel.recv(size)

    def write(self, data: bytes) -> None:
        self._channel.sendall(data)

    def close(self) -> None:
        self._channel.close()


class SshExecutor(OverChannel):
    """One worker over SSH.

    run_dir: rchd's run directory; holds the generated ssh_config and the control sockets of the bulk plane.
    client:  this workstation's id, told in the handshake.
    """

    def __init__(self, worker: Worker, *, run_dir: AbsPath, client: str) -> None:
        super().__init__(worker, client)
        self._run_dir = run_dir
        self._connection: Connection | None = None
        self._cache_dir = ""
        self._link = LinkRate()
        self._rsync: Rsync | None = None

    @property
    def cache_dir(self) -> str:
        return self._cache_dir

    def connect(self) -> Hello:
        with self._lock:
            if self.channel is not None and self._hello is not None:
                return self._hello
            self._drop("reconnecting")
            settings = ssh_settings(self._worker.declared)
            try:
                hello = self._open(settings)
            except VersionMismatch:
                # One attempt: drain is not needed, a version lives in its own directory and jobs keep theirs.
                self._drop("redeploying rch-wkr")
                self._connection = open_connection(settings)
                self._cache_dir = self._resolve_cache_dir()
                deploy.deploy(self._run_remote, self._cache_dir, self._worker.name)
                hello = self._open(settings)
            except RchError:
                self._drop("not connected")
                raise
            self._hello = hello
            self._rsync = Rsync(self._worker.name, *self._bulk_settings(settings))
            return hello

    def send_files(self, source: AbsPath, paths: Sequence[str], target: str) -> Moved:
        return self._link.note(self._bulk().send(source, paths, f"rch:{target}", self.bulk))

    def receive_files(self, source: str, paths: Sequence[str], target: AbsPath, *, largest: int) -> Moved:
        return self._link.note(self._bulk().receive(f"rch:{source}", paths, target, self.bulk, largest=largest))

    def link_mbit_s(self) -> float | None:
        return self._link.mbit_s

    def close(self) -> None:
        with self._lock:
            rsync, self._rsync = self._rsync, None
            self._drop("closed")
        if rsync is not None:
            rsync.end_master()

    # -- insides ------------------------------------------------------------------------------------------------

    def _drop(self, reason: str) -> None:
        channel, self._channel = self._channel, None
        connection, self._connection = self._connection, None
        if channel is not None:
            channel.close(reason)
        if connection is not None:
            with contextlib.suppress(Exception):  # paramiko raises anything from a dying transport
                connection.close()

    def _open(self, settings: SshSettings) -> Hello:
        name = self._worker.name
        self._connection = open_connection(settings)
        self._cache_dir = self._resolve_cache_dir()
        program = f"{self._cache_dir}/bin/rch-wkr"
        command = (
            f"exec {shlex.quote(self._worker.declared.python)} -I -S {shlex.quote(program)} "
            f"serve --cache {shlex.quote(self._cache_dir)}"
        )
        if self._worker.declared.slots is not None:
            command += f" --slots {self._worker.declared.slots}"
        session = self._session()
        session.settimeout(HANDSHAKE_S)
        session.set_combine_stderr(True)  # noise before the preface is skipped, and quoted when there is no preface
        session.exec_command(command)
        try:
            channel = Channel(ChannelPipe(session), name)
        except Unreachable as error:
            # The status follows the end of the output; a connection that is cut brings none (-1).
            if session.status_event.wait(STATUS_S) and session.recv_exit_status() > 0:
                raise ToolMissing(
                    f"{name}: rch-wkr does not start ({error.message})",
                    host=name,
                    tool="rch-wkr",
                    wanted=program,
                    hint="rch fleet apply",
                ) from error
            raise
        session.settimeout(None)
        self._channel = channel
        hello = greet(channel, self._client, self._clock)
        if hello.protocol != protocol.PROTOCOL:
            raise VersionMismatch(
                f"{name}: rch-wkr speaks protocol {hello.protocol}, this rchd {protocol.PROTOCOL}",
                host=name,
                ours=str(protocol.PROTOCOL),
                theirs=str(hello.protocol),
                hint="rch fleet apply",
            )
        return hello

    def _session(self) -> paramiko.Channel:
        connection = self._connection
        if connection is None:
            raise Unreachable(f"{self._worker.name}: not connected", host=self._worker.name)
        try:
            session: paramiko.Channel = connection.create_session()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise Unreachable(
                f"{self._worker.name}: no channel on the connection ({error})",
                host=self._worker.name,
                stage="handshake",
            ) from error
        return session

    def _run_remote(self, command: str, stdin: bytes = b"", timeout_s: float = 60.0) -> tuple[int, bytes]:
        """Run one shell command of ours (never the user's) on a channel of its own; (status, output)."""
        session = self._session()
        session.settimeout(timeout_s)
        session.set_combine_stderr(True)
        try:
            session.exec_command(command)
            if stdin:
                session.sendall(stdin)
            session.shutdown_write()
            output = bytearray()
            while block := session.recv(65536):
                output += block
                if len(output) > 1 << 20:
                    break
            return session.recv_exit_status(), bytes(output)
        except OSError as error:
            raise Unreachable(
                f"{self._worker.name}: a set-up command got no answer ({error})",
                host=self._worker.name,
                stage="handshake",
            ) from error
        finally:
            session.close()

    def _resolve_cache_dir(self) -> str:
        declared = self._worker.declared.cache_dir
        if declared.startswith("/"):
            return declared.rstrip("/")
        tail = declared.removeprefix("~/").rstrip("/")
        status, output = self._run_remote("printf '<%s>' \"$HOME\"", timeout_s=HANDSHAKE_S)
        text = output.decode("utf-8", "surrogateescape")
        start, end = text.rfind("<"), text.rfind(">")
        home = text[start + 1 : end]
        if status != 0 or not home.startswith("/"):
            raise Unreachable(
                f"{self._worker.name}: the account has no home directory to keep {declared} in",
                host=self._worker.name,
                stage="handshake",
                hint="set rch_cache_dir to an absolute path",
            )
        return f"{home.rstrip('/')}/{tail}"

    def _bulk_settings(self, settings: SshSettings) -> tuple[AbsPath, float]:
        directory = os.path.join(self._run_dir, "ssh")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        path = os.path.join(directory, f"{self._worker.name}.conf")
        temporary = f"{path}.{os.getpid()}.{threading.get_ident()}"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(config_file_text(settings, AbsPath(directory)))
        os.replace(temporary, path)
        return AbsPath(path), settings.connect_timeout_s

    def _bulk(self) -> Rsync:
        rsync = self._rsync
        if rsync is None:
            raise Unreachable(f"{self._worker.name}: not connected", host=self._worker.name, stage="transfer")
        return rsync


def open_connection(settings: SshSettings) -> Connection:
    """A Fabric connection with known host keys only, the given identity only, and TCP_NODELAY.

    Raises Unreachable; ``stage`` is connect, and the message says which of refused, timed out, unknown host key,
    changed host key or rejected key it was.
    """
    started = time.monotonic()
    kwargs: dict[str, Any] = {
        "key_filename": list(settings.identity_files) or None,
        "look_for_keys": False,
        "allow_agent": not settings.identities_only,
        "disabled_algorithms": {"kex": PARAMIKOS_KEX},
        "banner_timeout": HANDSHAKE_S,
        "auth_timeout": HANDSHAKE_S,
        "timeout": settings.connect_timeout_s,
    }
    gateway: Any = None
    if settings.proxy_jump:
        gateway = paramiko.ProxyCommand(f"ssh -W {settings.host}:{settings.port} {settings.proxy_jump}")
    elif settings.proxy_command:
        gateway = paramiko.ProxyCommand(
            settings.proxy_command.replace("%h", settings.host).replace("%p", str(settings.port))
        )
    if gateway is not None:
        kwargs["sock"] = gateway
    connection = Connection(
        settings.host,
        user=settings.user,
        port=settings.port,
        config=Config(lazy=True, overrides={"load_ssh_configs": False, "forward_agent": False}),
        connect_timeout=max(1, round(settings.connect_timeout_s)),
        connect_kwargs={k: v for k, v in kwargs.items() if k != "timeout"},
    )
    client: paramiko.SSHClient = connection.client
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    for path in (*settings.known_hosts, "/etc/ssh/ssh_known_hosts"):
        with contextlib.suppress(OSError, paramiko.SSHException):
            client.load_host_keys(path)
    try:
        connection.open()
    except Exception as error:  # Fabric lets paramiko's, socket's and its own errors through
        with contextlib.suppress(Exception):
            connection.close()
        raise _connect_error(settings, error, time.monotonic() - started) from error
    transport = connection.transport
    if transport is not None:
        transport.set_keepalive(15)
        if isinstance(transport.sock, socket.socket):
            # paramiko never sets it; small exchanges would wait 40 ms on Nagle (lessons F4)
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _connect_error(settings: SshSettings, error: Exception, elapsed_s: float) -> Unreachable:
    where = f"{settings.name}: {settings.user}@{settings.host}:{settings.port}"
    if isinstance(error, paramiko.BadHostKeyException):
        text, hint = f"{where}: the host key has changed", f"ssh-keygen -R {settings.host}, if you know why"
    elif isinstance(error, paramiko.AuthenticationException):
        text = f"{where}: the key was refused"
        hint = "set rch_ssh_key in the inventory, then rch fleet apply"
    elif isinstance(error, IncompatiblePeer) and "kex" in str(error):
        text = f"{where}: the server offers no key exchange by curve25519"
        hint = f"a newer OpenSSH on {settings.name}, or KexAlgorithms +curve25519-sha256 in its sshd_config"
    elif isinstance(error, TimeoutError):
        text, hint = f"{where}: connect timed out after {elapsed_s:.0f} s", f"rch workers probe {settings.name}"
    elif isinstance(error, paramiko.SSHException) and "not found in known_hosts" in str(error):
        text = f"{where}: the host key is not known"
        hint = "rch fleet apply, or ssh-keyscan and compare the fingerprint"
    else:
        cause: BaseException = error
        if isinstance(error, NoValidConnectionsError):  # one error per address; its own text tells none of them
            cause = next(iter(error.errors.values()))
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        text, hint = f"{where}: {reason}", f"rch workers probe {settings.name}"
    return Unreachable(" ".join(text.split()), host=settings.name, stage="connect", elapsed_s=elapsed_s, hint=hint)
