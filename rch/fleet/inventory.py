"""The inventory on disk: where it is, which files it consists of, on which line a variable stands.

Nothing here starts a process. ``yaml`` is imported late: reading a fresh snapshot does not need it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rch.errors import ConfigError
from rch.fleet.groups import check_groups
from rch.paths import AbsPath

if TYPE_CHECKING:
    from yaml.nodes import Node

_YAML = (".yml", ".yaml", ".json")
_VARIABLE_DIRS = ("group_vars", "host_vars")
_IGNORED = (".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".rst", ".orig", ".cfg", ".retry")
"""Name endings that Ansible passes over in an inventory directory too."""

HINT_NONE = "rch init, or set RCH_INVENTORY"


@dataclass(frozen=True)
class Stamp:
    """Stat data of one file or directory of the inventory; equal stamps mean equal contents."""

    path: str
    inode: int
    size: int
    mtime_ns: int
    mode: int

    def row(self) -> list[str | int]:
        return [self.path, self.inode, self.size, self.mtime_ns, self.mode]


def find_inventory(flag: str = "", environ: Mapping[str, str] | None = None) -> AbsPath:
    """The inventory to use: *flag*, then RCH_INVENTORY, ``~/.config/rch/inventory``, the checkout's ``inventory``.

    A path that was named (flag or variable) must exist; raises ConfigError otherwise or if there is none at all.
    """
    environ = os.environ if environ is None else environ
    for origin, named in (("--inventory", flag), ("RCH_INVENTORY", environ.get("RCH_INVENTORY", ""))):
        if named:
            path = os.path.abspath(os.path.expanduser(named))
            if not os.path.exists(path):
                raise ConfigError(f"no inventory there (named by {origin})", file=path, hint="rch init")
            return AbsPath(path)
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    candidates = [os.path.join(home, "rch", "inventory")]
    candidates += [candidates[0] + ".yml"]
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.path.exists(os.path.join(checkout, "ansible.cfg")):
        candidates.append(os.path.join(checkout, "inventory"))
    for path in candidates:
        if os.path.exists(path):
            return AbsPath(path)
    raise ConfigError(f"no inventory: {' and '.join(candidates)} do not exist", hint=HINT_NONE)


def stamps(source: AbsPath) -> tuple[Stamp, ...]:
    """Stat data of every file and directory that *source* consists of, sorted by path.

    For a directory everything below it, for a file also the ``group_vars`` and ``host_vars`` beside it.
    Raises ConfigError if *source* cannot be read.
    """
    found: list[Stamp] = []
    try:
        info = os.stat(source)
        if stat.S_ISDIR(info.st_mode):
            _stamp_tree(source, info, found)
        else:
            found.append(_stamp(source, info))
            for name in _VARIABLE_DIRS:
                beside = os.path.join(os.path.dirname(source), name)
                if os.path.isdir(beside):
                    _stamp_tree(beside, os.stat(beside), found)
    except OSError as error:
        raise ConfigError(
            f"the inventory cannot be read: {error.strerror or error}", file=str(error.filename or source)
        ) from error
    return tuple(sorted(found, key=lambda one: one.path))


def _stamp(path: str, info: os.stat_result) -> Stamp:
    return Stamp(path, info.st_ino, info.st_size, info.st_mtime_ns, info.st_mode)


def _stamp_tree(top: str, info: os.stat_result, found: list[Stamp]) -> None:
    found.append(_stamp(top, info))
    with os.scandir(top) as listing:
        for entry in listing:
            if entry.name.startswith(".") or entry.name.endswith(_IGNORED):
                continue
            below = entry.stat()
            if stat.S_ISDIR(below.st_mode):
                _stamp_tree(entry.path, below, found)
            else:
                found.append(_stamp(entry.path, below))


def files(found: Sequence[Stamp]) -> list[AbsPath]:
    """The regular files among *found*."""
    return [AbsPath(one.path) for one in found if stat.S_ISREG(one.mode)]


def is_dynamic(found: Sequence[Stamp]) -> bool:
    """True if the inventory has a source whose answer can change without its file: a program or a plugin's file."""
    for one in found:
        if not stat.S_ISREG(one.mode) or _is_variables_file(one.path):
            continue
        if one.mode & 0o111:
            return True
        if one.path.endswith(_YAML) and re.search(rb"(?m)^plugin\s*:", _read(one.path)):
            return True
    return False


def names_hosts(source: AbsPath) -> bool:
    """False for a directory that holds nothing but variables so far, which Ansible refuses."""
    return any(not _is_variables_file(path) for path in files(stamps(source)))


def _is_variables_file(path: str) -> bool:
    return any(part in _VARIABLE_DIRS for part in path.split("/"))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as handle:
            return handle.read()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=path) from error


def check_syntax(paths: Sequence[AbsPath]) -> None:
    """Raise ConfigError with file and line for YAML that does not parse, gives a key twice or is no groups of hosts."""
    for path in paths:
        if path.endswith(_YAML) or (_is_variables_file(path) and _looks_like_yaml(path)):
            node = compose(path)
            if node is not None:
                _refuse_duplicates(path, node)
                if not _is_variables_file(path):
                    check_groups(path, node)


def _looks_like_yaml(path: str) -> bool:
    """Variable files may have no ending at all; an encrypted one cannot be looked into."""
    return "." not in os.path.basename(path) and not _read(path).startswith(b"$ANSIBLE_VAULT")


def compose(path: str) -> Node | None:
    """The YAML tree of *path* with its line numbers; tags are not interpreted, so ``!vault`` is no obstacle."""
    import yaml  # late: a fresh snapshot is read without it

    data = _read(path)
    if data.startswith(b"$ANSIBLE_VAULT"):
        return None
    try:
        loader = yaml.CSafeLoader(data)
        try:
            node: Node | None = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"is not valid YAML: {what}", file=path, line=mark.line + 1 if mark else 0) from error
    return node


def _refuse_duplicates(path: str, node: Node) -> None:
    from yaml.nodes import MappingNode

    for one in _walk(node):
        if not isinstance(one, MappingNode):
            continue
        seen: dict[str, int] = {}
        for key, _value in one.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            if name in seen and name != "<<":
                raise ConfigError(
                    f"{name} is given twice, first on line {seen[name]}; the second silently wins",
                    file=path,
                    line=line,
                    key=name,
                )
            seen[name] = line


def _walk(node: Node) -> Iterator[Node]:
    """Every node once, aliases included."""
    from yaml.nodes import MappingNode, SequenceNode

    todo, seen = [node], set()
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, MappingNode):
            todo += [part for pair in one.value for part in pair]
        elif isinstance(one, SequenceNode):
            todo += one.value


def locate(paths: Sequence[AbsPath], host: str, groups: Sequence[str], variable: str, value: Any) -> tuple[str, int]:
    """The file and line where *variable* of *host* was given *value*; ("", 0) if it cannot be told.

    All places that set the variable are ranked as Ansible ranks them (host_vars, the host's own entry, group_vars
    of its groups, the rest); among them one that holds this very value is taken first.
    """
    best: tuple[int, int, str, int] | None = None
    for path in paths:
        for line, text, trail in _settings(path, variable):
            rank = (0 if _same(text, value) else 1, _rank(path, trail, host, groups))
            if best is None or rank < best[:2]:
                best = (*rank, path, line)
    return (best[2], best[3]) if best else ("", 0)


def _same(text: str, value: Any) -> bool:
    return text.lower() == str(value).lower()


def _rank(path: str, trail: Sequence[str], host: str, groups: Sequence[str]) -> int:
    parts = path.split("/")
    stems = {part.rsplit(".", 1)[0] if part.endswith(_YAML) else part for part in parts}
    if "host_vars" in parts:
        return 0 if host in stems else 5
    if host in trail:
        return 1
    if "group_vars" in parts:
        return 2 if stems & set(groups) else 5
    return 3 if set(trail) & set(groups) else 4


def _settings(path: str, variable: str) -> Iterator[tuple[int, str, Sequence[str]]]:
    """``(line, text of the value, names of the enclosing keys)`` of each place that sets *variable*."""
    if path.endswith(_YAML) or _is_variables_file(path):
        node = compose(path)
        if node is not None:
            yield from _yaml_settings(node, variable, ())
        return
    section = ""
    for number, raw in enumerate(_read(path).decode("utf-8", "replace").splitlines(), 1):
        header = re.match(r"\s*\[([^:\]]+)", raw)
        section = header.group(1) if header else section
        match = re.search(rf"(?:^|\s){re.escape(variable)}\s*=\s*(\S*)", raw)
        if match and not raw.lstrip().startswith(("#", ";")):
            yield number, match.group(1).strip("'\""), (section, raw.split()[0])


def _yaml_settings(node: Node, variable: str, trail: tuple[str, ...]) -> Iterator[tuple[int, str, Sequence[str]]]:
    from yaml.nodes import MappingNode, ScalarNode, SequenceNode

    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == variable:
                text = value.value if isinstance(value, ScalarNode) else ""
                yield key.start_mark.line + 1, text, trail
            elif len(trail) < 64:  # an alias may contain itself
                yield from _yaml_settings(value, variable, (*trail, str(key.value)))
    elif isinstance(node, SequenceNode):
        for one in node.value:
            yield from _yaml_settings(one, variable, trail)
