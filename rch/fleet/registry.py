"""The compiled registry: ``<state>/registry.json``.

Compiling asks ``ansible-inventory`` once, checks every registry variable against the schema and writes the result
beside the stat data of the inventory's files. Reading it costs a file and one stat per file of the inventory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rch.errors import ConfigError
from rch.fleet import inventory
from rch.fleet.declared import declare, groups_of, hosts_of
from rch.fleet.known_hosts import known_hosts_path
from rch.fleet.model import Declared, Registry, Worker
from rch.fleet.record import read_observed, write_private
from rch.fleet.variables import GROUP, check_host
from rch.paths import AbsPath

_FORMAT = 1
_ANSIBLE_TIMEOUT_S = 60.0
_DYNAMIC_MAX_AGE_S = 300.0
"""An inventory that is a program or a plugin has no file whose stat says that its answer changed."""

_TUPLES = ("ssh_options", "tags")


def load_registry(state_dir: AbsPath, source: AbsPath | None = None) -> Registry:
    """The registry as the inventory is now: the snapshot if it is fresh, else compiled anew (half a second).

    source: the inventory; None means :func:`rch.fleet.inventory.find_inventory`.
    Raises ConfigError with one clear line for a missing, broken or wrong inventory.
    """
    where = inventory.find_inventory() if source is None else source
    if is_stale(state_dir, where):
        return compile_registry(state_dir, where)
    return read_registry(state_dir)


def refresh_if_stale(state_dir: AbsPath, source: AbsPath | None = None) -> Registry | None:
    """Compile anew if the inventory changed since the snapshot; None if it did not. For rchd's background."""
    where = inventory.find_inventory() if source is None else source
    return compile_registry(state_dir, where) if is_stale(state_dir, where) else None


def read_registry(state_dir: AbsPath) -> Registry:
    """The snapshot as it lies there, joined with the observed facts; no process, no look at the inventory.

    Raises ConfigError if there is none or it was written by another version.
    """
    snapshot = _read_snapshot(state_dir)
    if snapshot is None:
        raise ConfigError("the inventory has not been compiled yet", hint="rch init, or rch fleet apply")
    workers = {}
    for name, fields in snapshot["workers"].items():
        values: dict[str, Any] = {key: tuple(value) if key in _TUPLES else value for key, value in fields.items()}
        workers[name] = _worker(state_dir, Declared(**values))
    return Registry(workers, snapshot["digest"], tuple(AbsPath(row[0]) for row in snapshot["stamps"]))


def is_stale(state_dir: AbsPath, source: AbsPath) -> bool:
    """True if *source* is not what the snapshot was compiled from. Stats only: 0.1 ms for a handful of files."""
    snapshot = _read_snapshot(state_dir)
    if snapshot is None or snapshot["source"] != source:
        return True
    if [one.row() for one in inventory.stamps(source)] != snapshot["stamps"]:
        return True
    return bool(snapshot["dynamic"]) and time.time() - float(snapshot["compiled_at"]) > _DYNAMIC_MAX_AGE_S


def compile_registry(state_dir: AbsPath, source: AbsPath, *, write: bool = True) -> Registry:
    """Ask Ansible for *source*, check it, and (unless not *write*) put the snapshot in place by rename.

    Raises ConfigError with file and line where they can be told. A wrong inventory never replaces a good snapshot.
    """
    found = inventory.stamps(source)
    paths = inventory.files(found)
    inventory.check_syntax(paths)
    dynamic = inventory.is_dynamic(found)
    listing = ask_ansible(source)
    declared = check_listing(listing, paths)
    fields = {one.name: dataclasses.asdict(one) for one in declared}
    stamps = [one.row() for one in found]
    digest = hashlib.blake2b(json.dumps([source, fields], sort_keys=True).encode(), digest_size=16).hexdigest()
    snapshot = {
        "format": _FORMAT,
        "source": source,
        "digest": digest,
        "dynamic": dynamic,
        "compiled_at": time.time(),
        "stamps": stamps,
        "workers": fields,
    }
    if write:
        write_private(_snapshot_path(state_dir), json.dumps(snapshot, indent=1).encode("ascii") + b"\n")
    return Registry({one.name: _worker(state_dir, one) for one in declared}, digest, tuple(paths))


def own_key(state_dir: AbsPath) -> AbsPath:
    """The key that the playbooks make for workers without ``rch_ssh_key``; it need not exist."""
    return AbsPath(os.path.join(state_dir, "ssh", "id_ed25519"))


def _worker(state_dir: AbsPath, declared: Declared) -> Worker:
    # An embedded worker's account is the user's own: no playbook lets our key in there, so ssh's own choice holds.
    wanted = declared.ssh_key is None and declared.executor == "ssh" and not declared.embedded
    if wanted and os.path.exists(own_key(state_dir)):
        declared = dataclasses.replace(declared, ssh_key=own_key(state_dir))
    if declared.known_hosts is None and os.path.exists(known_hosts_path(state_dir)):
        declared = dataclasses.replace(declared, fleet_known_hosts=known_hosts_path(state_dir))
    return Worker(declared, read_observed(state_dir, declared.name))


def check_listing(listing: Mapping[str, Any], paths: Sequence[AbsPath] = ()) -> list[Declared]:
    """The workers in *listing* (the JSON of ``ansible-inventory --list``), sorted by name.

    Raises ConfigError for the first variable that breaks the schema; *paths* are searched for its line.
    """
    hostvars = listing.get("_meta", {}).get("hostvars", {})
    groups = groups_of(listing)
    declared = []
    for name in sorted(hosts_of(listing, GROUP)):
        variables = hostvars.get(name, {})
        for finding in check_host(name, variables):
            file, line = inventory.locate(paths, name, groups[name], finding.variable, finding.value)
            raise ConfigError(finding.message, file=file, line=line, key=finding.variable, nearest=finding.nearest)
        try:
            declared.append(declare(name, variables, groups[name]))
        except ConfigError as error:
            if error.file or not error.key:
                raise
            file, line = inventory.locate(paths, name, groups[name], error.key, variables.get(error.key))
            raise ConfigError(error.message, file=file, line=line, key=error.key) from error
    return declared


def ask_ansible(source: AbsPath) -> dict[str, Any]:
    """The JSON of ``ansible-inventory --list`` for *source*; raises ConfigError with Ansible's reason in one line."""
    environ = dict(os.environ)
    if own := _own_config():
        environ.setdefault("ANSIBLE_CONFIG", own)
    environ.update(
        ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="True",  # default: a broken inventory is a warning and exit 0
        ANSIBLE_NOCOLOR="True",
        ANSIBLE_DEPRECATION_WARNINGS="False",
        LC_ALL="C.UTF-8",
    )
    command = [sys.executable, "-m", "ansible", "inventory", "--inventory", source, "--list"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environ,
            cwd="/",
            timeout=_ANSIBLE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"the inventory did not answer within {_ANSIBLE_TIMEOUT_S:.0f} s", file=source) from error
    except OSError as error:
        raise ConfigError(f"ansible-inventory cannot be started: {error}", file=source) from error
    if done.returncode != 0:
        raise ConfigError(f"Ansible refuses the inventory: {_reason(done.stderr)}", file=source)
    try:
        listing = json.loads(done.stdout)
    except ValueError as error:
        raise ConfigError("ansible-inventory did not answer with JSON", file=source) from error
    if not isinstance(listing, dict):
        raise ConfigError("ansible-inventory did not answer with an object", file=source)
    return listing


def _own_config() -> str:
    """The checkout's ansible.cfg, or ""; never one that happens to lie in a working directory."""
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.path.join(checkout, "ansible.cfg")
    return path if os.path.exists(path) else ""


def _reason(stderr: bytes) -> str:
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    told = [line for line in lines if re.match(r"\[?ERROR", line)] or lines[-1:] or ["no reason given"]
    return re.sub(r"^\[?ERROR\]?:?\s*!?\s*", "", told[0])[:400]


def _snapshot_path(state_dir: AbsPath) -> str:
    return os.path.join(state_dir, "registry.json")


def _read_snapshot(state_dir: AbsPath) -> dict[str, Any] | None:
    """None where there is no snapshot of this format: that is a reason to compile, not an error."""
    try:
        with open(_snapshot_path(state_dir), "rb") as handle:
            snapshot = json.loads(handle.read())
    except (OSError, ValueError):
        return None
    if not isinstance(snapshot, dict) or snapshot.get("format") != _FORMAT:
        return None
    known = {one.name for one in dataclasses.fields(Declared)}
    if any(set(fields) != known for fields in snapshot["workers"].values()):
        return None
    return snapshot
