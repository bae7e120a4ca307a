"""Observed facts: one JSON record per worker in ``<state>/facts``, written by playbooks and probes.

What a worker says is untrusted: a record is bounded, is plain JSON, and holds no template text, so that nothing in
it can be evaluated by whoever reads it next (lessons PD-06).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rch.errors import ConfigError
from rch.fleet.model import Observed
from rch.paths import AbsPath

RECORD_MAX = 4 * 1024 * 1024
"""Bytes. A record with a dozen toolchains and the packages of a C compiler is below 100 kB."""

_DEPTH_MAX = 32
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,252}")


def record_path(state_dir: AbsPath, name: str) -> str:
    """Where the record of worker *name* lies; raises ConfigError for a name that cannot be a file's."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot be the name of a worker", key=name)
    return os.path.join(state_dir, "facts", name + ".json")


def read_observed(state_dir: AbsPath, name: str) -> Observed:
    """The record of worker *name*, or an empty Observed where there is none or it does not parse."""
    try:
        with open(record_path(state_dir, name), "rb") as handle:
            data = handle.read(RECORD_MAX + 1)
            at = os.fstat(handle.fileno()).st_mtime
        facts = check_facts(name, data)
    except (OSError, ConfigError):
        return Observed()
    return Observed(facts=facts, at=datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))


def check_facts(name: str, data: bytes) -> dict[str, Any]:
    """The facts in *data* as JSON object; raises ConfigError naming the worker if they break a rule."""
    if len(data) > RECORD_MAX:
        raise ConfigError(f"{name}: its facts are longer than {RECORD_MAX} bytes")
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: its facts are not JSON", hint=f"rch workers probe {name}") from error
    if not isinstance(facts, dict):
        raise ConfigError(f"{name}: its facts are not one JSON object", hint=f"rch workers probe {name}")
    for where, text in _strings(facts, "facts", 0):
        if "{{" in text or "{%" in text:
            raise ConfigError(f"{name}: {where} holds template text, which no fact may", key=where)
    return facts


def _strings(value: Any, where: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _DEPTH_MAX:
        raise ConfigError(f"{where.split('.', maxsplit=1)[0]} are nested deeper than {_DEPTH_MAX} levels")
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield where, str(key)
            yield from _strings(one, f"{where}.{str(key)[:40]}", depth + 1)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one, where, depth + 1)


def write_record(state_dir: AbsPath, name: str, data: bytes) -> bool:
    """Check *data* and keep it as the record of worker *name*, 0600; True if its contents changed.

    An unchanged record only gets the current time: that is when its facts were last seen to be true.
    """
    facts = check_facts(name, data)
    path = record_path(state_dir, name)
    text = json.dumps(facts, indent=1, sort_keys=True).encode("ascii") + b"\n"
    try:
        with open(path, "rb") as handle:
            if handle.read() == text:
                os.utime(path)
                return False
    except FileNotFoundError:
        pass
    write_private(path, text)
    return True


def write_private(path: str, data: bytes) -> None:
    """Replace *path* by *data* in one step: mode 0600, its directory 0700 when it has to be made."""
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=".", dir=directory)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
