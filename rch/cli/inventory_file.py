"""Edits of the inventory file that keep its comments and its order."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rch.config.trust import write_private
from rch.errors import ConfigError, UsageError
from rch.fleet.inventory import find_inventory
from rch.fleet.registry import compile_registry
from rch.paths import AbsPath

GROUP = "rch_workers"
EMPTY = "---\nall:\n  children:\n    rch_workers:\n      hosts: {}\n"


def inventory_file(env: Mapping[str, str]) -> AbsPath:
    """The file that holds, or will hold, the hosts: of a directory its ``hosts.yml``; where there is none at all, that
    of RCH_INVENTORY, else the user's ``~/.config/rch/inventory/hosts.yml``."""
    try:
        source = find_inventory(environ=env)
    except ConfigError:
        named = env.get("RCH_INVENTORY", "")
        if named:
            path = os.path.abspath(os.path.expanduser(named))
            return AbsPath(path if path.endswith((".yml", ".yaml")) else os.path.join(path, "hosts.yml"))
        home = env.get("XDG_CONFIG_HOME") or os.path.join(env.get("HOME", os.path.expanduser("~")), ".config")
        return AbsPath(os.path.join(home, "rch", "inventory", "hosts.yml"))
    if not os.path.isdir(source):
        return source
    for name in ("hosts.yml", "hosts.yaml"):
        if os.path.exists(os.path.join(source, name)):
            return AbsPath(os.path.join(source, name))
    return AbsPath(os.path.join(source, "hosts.yml"))


def add_host(path: AbsPath, name: str, variables: Mapping[str, Any], tags: Sequence[str]) -> str:
    """The text of the inventory *path* with worker *name* added; raises UsageError when it is there already."""
    merged = merge_hosts(path, [(name, variables, tags)])
    if merged is None or name not in merged.added:
        raise UsageError(f"{name} is already in {path}", what=name, hint=f"rch workers remove {name}")
    return merged.text


@dataclass(frozen=True)
class Merge:
    """The inventory's new text, and what is new in it: names of hosts, "host: variable" of changed values."""

    text: str
    added: tuple[str, ...]
    changed: tuple[str, ...]


def merge_hosts(
    path: AbsPath, hosts: Sequence[tuple[str, Mapping[str, Any], Sequence[str]]], group: Mapping[str, Any] | None = None
) -> Merge | None:
    """*hosts* (name, variables, tags) and variables of the *group* put into the inventory; None where all is there.

    A host that is there keeps every variable that is not given here.
    """
    tree, yaml = _load(path)
    children = _table(_table(tree, "all", path), "children", path)
    workers = _table(children, GROUP, path)
    added, changed = [], []
    if group:
        if "vars" not in workers:
            workers.insert(0, "vars", yaml.map())  # above the hosts, where people look for it
        table = _table(workers, "vars", path)
        for key, value in group.items():
            if table.get(key) != value:
                table[key] = value
                changed.append(f"{GROUP}: {key}")
    known = _table(workers, "hosts", path)
    for name, variables, tags in hosts:
        if name in known:
            entry = _table(known, name, path)
            for key, value in variables.items():
                if entry.get(key) != value:
                    entry[key] = value
                    changed.append(f"{name}: {key}")
        else:
            _new_host(yaml, known, name, variables)
            added.append(name)
        for tag in tags:
            members = _table(_table(children, tag, path), "hosts", path)
            if name not in members:
                _new_host(yaml, members, name, {})
                if name not in added:
                    changed.append(f"{name}: {tag}")
    return Merge(_dump(tree, yaml), tuple(added), tuple(changed)) if added or changed else None


def _new_host(yaml: Any, hosts: Any, name: str, variables: Mapping[str, Any]) -> None:
    entry = yaml.map()
    entry.update(variables)
    entry.fa.set_flow_style()
    hosts.fa.set_block_style()
    hosts[name] = entry


def remove_host(path: AbsPath, name: str) -> str:
    """The text of the inventory *path* without worker *name* in any group; raises UsageError when it is not there."""
    tree, yaml = _load(path)
    if not _remove(tree, name):
        raise UsageError(f"{name} is not in {path}", what=name, hint="rch workers list")
    return _dump(tree, yaml)


def replace_inventory(path: AbsPath, text: str, state: AbsPath, env: Mapping[str, str]) -> None:
    """Write *text* to *path* by rename, then compile the registry; a wrong inventory is taken back.

    Raises ConfigError with file and line of what is wrong.
    """
    target = AbsPath(os.path.realpath(path))
    try:
        with open(target, "rb") as stream:
            before: bytes | None = stream.read()
        mode = os.stat(target).st_mode & 0o777
    except FileNotFoundError:
        before, mode = None, 0o644
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot be made: {error.strerror}", file=os.path.dirname(target)) from error
    write_private(target, text.encode(), mode)
    os.makedirs(state, mode=0o700, exist_ok=True)
    try:
        compile_registry(state, _source(path, env))
    except ConfigError:
        if before is None:
            os.unlink(target)
        else:
            write_private(target, before, mode)
        raise


def _source(path: AbsPath, env: Mapping[str, str]) -> AbsPath:
    try:
        return find_inventory(environ=env)
    except ConfigError:
        return path


def _load(path: AbsPath) -> tuple[Any, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except FileNotFoundError:
        text = EMPTY
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", file=path) from error
    yaml.explicit_start = any(line.startswith("---") for line in text.splitlines())
    try:
        tree = yaml.load(text) or yaml.load(EMPTY)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 0
        raise ConfigError(f"is not valid YAML: {getattr(error, 'problem', error)}", file=path, line=line) from error
    if not isinstance(tree, dict):
        raise ConfigError("is no inventory that can be edited: its top is not a mapping", file=path, line=1)
    return tree, yaml


def _table(parent: Any, name: str, path: AbsPath) -> Any:
    """The mapping *name* of *parent*, made where it is missing or empty."""
    from ruamel.yaml.comments import CommentedMap

    found = parent.get(name)
    if found is None:
        found = CommentedMap()
        parent[name] = found
    if not isinstance(found, CommentedMap):
        line = parent.lc.key(name)[0] + 1
        raise ConfigError(f"{name} must be a mapping", file=path, line=line, key=name)
    return found


def _remove(node: Any, name: str) -> bool:
    found = False
    if isinstance(node, dict):
        hosts = node.get("hosts")
        if isinstance(hosts, dict) and name in hosts:
            del hosts[name]
            found = True
        for key, child in node.items():
            if key != "hosts":
                found = _remove(child, name) or found
    return found


def _dump(tree: Any, yaml: Any) -> str:
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()
