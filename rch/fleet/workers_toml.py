"""The main seed's ``workers.toml`` -> inventory variables (coverage D-5). Pure: text in, values out.

::

    [defaults] slots_per_core          -> rch_slots_per_core of the group
               ssh_timeout_ms          -> ansible_timeout of the group, whole seconds, rounded up
               heartbeat_interval_sec  -> daemon.heartbeat_interval_sec of the user's configuration
    [[workers]] id                     -> the inventory name        host           -> ansible_host
               user                    -> ansible_user              identity_file  -> ansible_ssh_private_key_file
               total_slots             -> rch_slots                 priority       -> rch_priority
               enabled                 -> rch_enabled               tags           -> groups
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rch.errors import ConfigError
from rch.fleet.variables import VARIABLES, shown

_WORKER = {
    "host": "ansible_host",
    "user": "ansible_user",
    "identity_file": "ansible_ssh_private_key_file",
    "total_slots": "rch_slots",
    "priority": "rch_priority",
    "enabled": "rch_enabled",
}
_DEFAULTS = ("slots_per_core", "ssh_timeout_ms", "heartbeat_interval_sec")


@dataclass(frozen=True)
class ImportedWorker:
    """One ``[[workers]]`` table: its name, its variables, its groups."""

    name: str
    variables: Mapping[str, Any]
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Imported:
    """What a workers.toml says. group: variables of rch_workers; unknown: keys that mean nothing, as written."""

    workers: tuple[ImportedWorker, ...]
    group: Mapping[str, Any] = field(default_factory=dict)
    heartbeat_s: int | None = None
    unknown: tuple[str, ...] = ()


def parse(text: str, file: str) -> Imported:
    """What *text* says; raises ConfigError naming *file* and the table that is wrong."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not valid TOML: {error}", file=file) from error
    rows = document.get("workers", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError("workers must be tables [[workers]]", file=file, key="workers")
    defaults = document.get("defaults", {})
    if not isinstance(defaults, dict):
        raise ConfigError("defaults must be a table [defaults]", file=file, key="defaults")
    group: dict[str, Any] = {}
    heartbeat = None
    if "slots_per_core" in defaults:
        per_core = float(_number(defaults, "slots_per_core", file))
        group["rch_slots_per_core"] = _fits("rch_slots_per_core", per_core, "defaults.slots_per_core", file)
    if "ssh_timeout_ms" in defaults:
        seconds = max(1, math.ceil(_number(defaults, "ssh_timeout_ms", file) / 1000))
        group["ansible_timeout"] = _fits("ansible_timeout", seconds, "defaults.ssh_timeout_ms, in seconds,", file)
    if "heartbeat_interval_sec" in defaults:
        heartbeat = math.ceil(_number(defaults, "heartbeat_interval_sec", file))
    return Imported(
        workers=tuple(_worker(row, number, file) for number, row in enumerate(rows, 1)),
        group=group,
        heartbeat_s=heartbeat,
        unknown=tuple(_unknown(document, defaults, rows)),
    )


def _worker(row: Mapping[str, Any], number: int, file: str) -> ImportedWorker:
    name = row.get("id")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"worker {number} has no id", file=file, key="id")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,252}", name):
        raise ConfigError(f"worker {number}: id must be a plain name, got {shown(name)}", file=file, key="id")
    if not isinstance(row.get("host"), str):
        raise ConfigError(f"worker {name} has no host", file=file, key="host")
    tags = row.get("tags", [])
    _fits("rch_tags", tags, f"worker {name}: tags", file)
    variables = {
        variable: _fits(variable, row[key], f"worker {name}: {key}", file)
        for key, variable in _WORKER.items()
        if key in row
    }
    return ImportedWorker(name, variables, tuple(tags))


def _fits(variable: str, value: Any, what: str, file: str) -> Any:
    """*value*; raises ConfigError in the words of *file* when the inventory would not take it as *variable*."""
    rule = VARIABLES[variable]
    if not rule.accepts(value):
        raise ConfigError(f"{what} must be {rule.what}, got {shown(value)}", file=file, key=what.rpartition(" ")[2])
    return value


def _unknown(document: Mapping[str, Any], defaults: Mapping[str, Any], rows: list[Any]) -> Iterator[str]:
    yield from (key for key in document if key not in ("defaults", "workers"))
    yield from (f"defaults.{key}" for key in defaults if key not in _DEFAULTS)
    for row in rows:
        yield from (f"workers.{row.get('id')}.{key}" for key in row if key not in (*_WORKER, "id", "tags"))


def _number(table: Mapping[str, Any], key: str, file: str) -> float:
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise ConfigError(f"defaults.{key} must be a number above 0, got {value!r}", file=file, key=key)
    return value
