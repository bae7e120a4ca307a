"""What ``ansible-inventory --list`` says -> Declared workers. Pure."""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from rch.errors import ConfigError
from rch.fleet.model import Declared
from rch.fleet.variables import GROUP
from rch.paths import AbsPath

_NO_TAGS = frozenset({"all", "ungrouped", GROUP})

_FLAG_OPTIONS = {
    "-J": "ProxyJump",
    "-i": "IdentityFile",
    "-l": "User",
    "-p": "Port",
    "-c": "Ciphers",
    "-m": "MACs",
    "-b": "BindAddress",
}
"""Flags of ssh with a value that are settings by another name."""

_FLAG_SWITCHES = {"-C": ("Compression", "yes"), "-4": ("AddressFamily", "inet"), "-6": ("AddressFamily", "inet6")}

_IGNORED_SWITCHES = frozenset({"-A", "-a", "-q", "-T", "-t", "-v", "-vv", "-vvv", "-x", "-X", "-k"})
"""What people add for their own logins; rch forwards nothing and needs no terminal."""

_OWN_SETTINGS = frozenset({"controlmaster", "controlpath", "controlpersist", "forwardagent", "forwardx11"})
"""Settings that rch makes itself, per connection."""


_ADMINISTRATOR = frozenset({"identityfile", "user", "port"})
"""These are the administrator's; rchd's own come from rch_user, rch_ssh_key and ansible_port."""


def hosts_of(listing: Mapping[str, Any], group: str) -> list[str]:
    """Every host of *group* and of its child groups, in the inventory's order."""
    names: dict[str, None] = {}
    todo, seen = [group], set()
    while todo:
        one = todo.pop(0)
        if one in seen:
            continue
        seen.add(one)
        entry = listing.get(one)
        if isinstance(entry, Mapping):
            names.update(dict.fromkeys(entry.get("hosts") or []))
            todo += list(entry.get("children") or [])
    return list(names)


def groups_of(listing: Mapping[str, Any]) -> dict[str, list[str]]:
    """For every host the groups that hold it, directly or through child groups."""
    held: dict[str, list[str]] = {}
    for group in listing:
        if group != "_meta":
            for host in hosts_of(listing, group):
                held.setdefault(host, []).append(group)
    return held


def ssh_settings(arguments: str) -> Iterator[tuple[str, str]]:
    """The settings in *arguments* as one would type them behind ``ssh``: pairs of keyword and value.

    ``-F FILE`` is the pair ``("-F", FILE)``. Raises ValueError for what is no setting (a forward, a host).
    """
    words = shlex.split(arguments)
    while words:
        word = words.pop(0)
        flag, attached = word[:2], word[2:]
        if word in _FLAG_SWITCHES:
            yield _FLAG_SWITCHES[word]
        elif word in _IGNORED_SWITCHES:
            continue
        elif flag in ("-o", "-F") or flag in _FLAG_OPTIONS:
            if not attached and not words:
                raise ValueError(f"{flag} without a value")
            value = attached or words.pop(0)
            if flag == "-F":
                yield flag, value
                continue
            if flag != "-o":
                yield _FLAG_OPTIONS[flag], value
                continue
            keyword, _, rest = value.partition("=") if "=" in value else value.partition(" ")
            if not rest.strip():
                raise ValueError(f"-o {value} has no value")
            if keyword.strip().lower() not in _OWN_SETTINGS:
                yield keyword.strip(), rest.strip()
        else:
            raise ValueError(f"{word} is no setting that rch can carry over")


def declare(name: str, variables: Mapping[str, Any], groups: list[str]) -> Declared:
    """One worker from its (already checked) *variables*; raises ConfigError for what only makes sense together."""
    get = variables.get
    embedded = bool(get("rch_embedded", False))
    connection = str(get("ansible_connection", "ssh")).removeprefix("ansible.builtin.")
    executor = get("rch_executor") or {"ssh": "ssh", "smart": "ssh", "local": "local"}.get(connection)
    if executor is None:
        raise ConfigError(
            f"{name}: rch cannot run jobs over ansible_connection {connection}; set rch_executor",
            key="ansible_connection",
        )
    words: list[str] = []
    known_hosts: AbsPath | None = None
    for key in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
        try:
            for keyword, value in ssh_settings(str(get(key) or "")):
                if keyword.lower() == "userknownhostsfile" and " " not in value.strip('"'):
                    known_hosts = _path(value.strip('"'))
                elif keyword == "-F":
                    words += [keyword, os.path.expanduser(value)]
                elif keyword.lower() not in _ADMINISTRATOR:
                    words += ["-o", f"{keyword}={value}"]
        except ValueError as error:
            raise ConfigError(f"{name}: {key}: {error}", key=key) from error
    own_account = embedded or executor == "local"
    interpreter = str(get("ansible_python_interpreter") or "")
    return Declared(
        name=name,
        host=str(get("ansible_host") or name),
        port=get("ansible_port"),
        user=str(get("rch_user") or (get("ansible_user") or _me() if own_account else "rch")),
        ssh_key=_path(get("rch_ssh_key") or (get("ansible_ssh_private_key_file") if own_account else None)),
        known_hosts=known_hosts,
        ssh_options=tuple(words),
        executor=str(executor),
        slots=get("rch_slots"),
        slots_per_core=float(get("rch_slots_per_core", 1.0)),
        priority=int(get("rch_priority", 100)),
        enabled=bool(get("rch_enabled", True)),
        cache_dir=str(get("rch_cache_dir") or "~/.rch").rstrip("/"),
        tags=tuple(sorted((set(groups) - _NO_TAGS) | set(get("rch_tags") or ()))),
        description=str(get("rch_description") or ""),
        embedded=embedded,
        python=interpreter if interpreter.startswith("/") else "python3",
        connect_timeout_s=float(get("ansible_ssh_timeout") or get("ansible_timeout") or 5),
        session=str(get("rch_session") or ""),
        workdir=str(get("rch_workdir") or ""),
        platform=str(get("rch_platform") or ""),
        addr=str(get("rch_addr") or ""),
        tunnel=str(get("rch_tunnel") or "auto"),
    )


def _me() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _path(value: Any) -> AbsPath | None:
    return AbsPath(os.path.abspath(os.path.expanduser(str(value)))) if value else None
