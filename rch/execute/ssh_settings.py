"""What OpenSSH would use for a host, asked of OpenSSH itself, and given explicitly to both planes.

``ssh -G`` is the only reader of ssh_config that knows Include, Match and canonical names (lessons DS-11); the
inventory's own values go in as options, so the answer is the merger that a person at the prompt would get.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from dataclasses import dataclass

from rch.errors import Refused, Unreachable
from rch.fleet.model import Declared
from rch.paths import AbsPath

REFUSED_KEX = ("diffie-hellman-*", "ecdh-sha2-*")
"""Key exchanges that rch does not take part in, as OpenSSH's patterns: what is left is curve25519, alone or in a hybrid
(coverage D-12; a server cannot be told so for one account)."""


@dataclass(frozen=True)
class SshSettings:
    """Everything both SSH stacks need; nothing is left for either to find by itself."""

    name: str
    host: str
    port: int
    user: str
    identity_files: tuple[str, ...]
    identities_only: bool
    known_hosts: tuple[str, ...]
    proxy_jump: str = ""
    proxy_command: str = ""
    host_key_alias: str = ""
    connect_timeout_s: float = 5.0


def ssh_settings(declared: Declared) -> SshSettings:
    """Settings for one worker.

    Raises Refused when a configured key is missing or readable by others (coverage A-15), Unreachable when
    ``ssh -G`` refuses the configuration.
    """
    command = ["ssh", "-G", "-l", declared.user]
    if declared.port is not None:
        command += ["-p", str(declared.port)]
    if declared.ssh_key is not None:
        check_identity(declared.name, declared.ssh_key)
        command += ["-i", declared.ssh_key, "-o", "IdentitiesOnly=yes"]
    if declared.known_hosts is not None:
        command += ["-o", f'UserKnownHostsFile="{declared.known_hosts}"']
    command += list(declared.ssh_options)
    try:
        answer = subprocess.run(
            [*command, "--", declared.host], capture_output=True, timeout=10, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreachable(
            f"{declared.name}: ssh -G {declared.host} failed ({error})", host=declared.name, hint="rch doctor"
        ) from error
    if answer.returncode != 0:
        text = " ".join(answer.stderr.decode("utf-8", "replace").split())[:300]
        raise Unreachable(
            f"{declared.name}: ssh_config is refused by ssh: {text}",
            host=declared.name,
            hint=f"ssh -G {declared.host}",
        )
    return _settings_from(declared, answer.stdout.decode("utf-8", "surrogateescape"))


def _settings_from(declared: Declared, text: str) -> SshSettings:
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key, []).append(value)

    def first(key: str, default: str = "") -> str:
        value = values.get(key, [default])[0]
        return "" if value == "none" else value

    identities = tuple(os.path.expanduser(v) for v in values.get("identityfile", []))
    if declared.ssh_key is not None:
        identities = (declared.ssh_key,)  # with a configured identity no other key is offered
    known = tuple(os.path.expanduser(v) for v in first("userknownhostsfile").split())
    if declared.known_hosts is not None:
        known = (declared.known_hosts,)
    if declared.fleet_known_hosts is not None:
        known = (declared.fleet_known_hosts, *known)
    return SshSettings(
        name=declared.name,
        host=first("hostname", declared.host),
        port=int(first("port", "22")),
        user=first("user", declared.user),
        identity_files=tuple(i for i in identities if os.path.exists(i)),
        identities_only=declared.ssh_key is not None or first("identitiesonly") == "yes",
        known_hosts=known,
        proxy_jump=first("proxyjump"),
        proxy_command=first("proxycommand"),
        host_key_alias=first("hostkeyalias"),
        connect_timeout_s=declared.connect_timeout_s,
    )


def check_identity(name: str, path: AbsPath) -> None:
    """Refuse a key file that is missing or that others may read, before anything is contacted."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise Refused(
            f"{name}: identity file {path} cannot be used ({error.strerror})", hint="set rch_ssh_key in the inventory"
        ) from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise Refused(
            f"{name}: identity file {path} has mode {stat.S_IMODE(status.st_mode):04o}, others may read it",
            hint=f"chmod 600 {path}",
        )


SOCKET_ROOM = 107 - 17
"""Bytes for a control path: a Unix socket's 107, less the 17 that OpenSSH adds while it makes the socket."""


def _multiplexing(settings: SshSettings, control_dir: AbsPath) -> tuple[str, ...]:
    """One master per worker, or none where the directory leaves no room for a socket's name (slower, never wrong)."""
    # %C would be 40 bytes; eight tell a handful of workers of one run directory apart.
    name = hashlib.blake2b(repr(settings).encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    path = f"{control_dir}/{name}"
    if len(os.fsencode(path)) > SOCKET_ROOM:
        return ("  ControlMaster no", "  ControlPath none")
    path = path.replace("%", "%%")
    return ("  ControlMaster auto", f'  ControlPath "{path}"', "  ControlPersist 120")


def config_file_text(settings: SshSettings, control_dir: AbsPath) -> str:
    """An ssh_config for ``ssh -F`` with one host, ``rch``; the bulk plane's whole configuration.

    ControlPersist 120 s: long enough between an agent's builds, short enough to leave nothing behind.
    ServerAlive 15 s x 3 stands behind the control plane's own pings (lessons OS-07).
    """

    def quoted(value: str) -> str:
        return '"' + value + '"'

    lines = [
        "Host rch",
        f"  HostName {quoted(settings.host)}",
        f"  Port {settings.port}",
        f"  User {quoted(settings.user)}",
        *(f"  IdentityFile {quoted(i.replace('%', '%%'))}" for i in settings.identity_files),
        f"  IdentitiesOnly {'yes' if settings.identities_only else 'no'}",
        "  UserKnownHostsFile " + " ".join(quoted(k) for k in settings.known_hosts),
        "  GlobalKnownHostsFile /etc/ssh/ssh_known_hosts",
        "  StrictHostKeyChecking yes",
        "  BatchMode yes",
        f"  KexAlgorithms -{','.join(REFUSED_KEX)}",
        "  ForwardAgent no",
        "  ForwardX11 no",
        *_multiplexing(settings, control_dir),
        f"  ConnectTimeout {max(1, round(settings.connect_timeout_s))}",
        "  ServerAliveInterval 15",
        "  ServerAliveCountMax 3",
    ]
    if settings.host_key_alias:
        lines.append(f"  HostKeyAlias {quoted(settings.host_key_alias)}")
    if settings.proxy_jump:
        lines.append(f"  ProxyJump {settings.proxy_jump}")
    elif settings.proxy_command:
        lines.append(f"  ProxyCommand {settings.proxy_command}")
    return "\n".join(lines) + "\n"
