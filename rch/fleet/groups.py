"""Whether a YAML inventory has the shape that Ansible reads: what it has not, Ansible passes over with a warning.

A group that was misspelt into nothing leaves "no workers" behind, which helps nobody. So each mistake is one line here,
with its place. Pure: nodes of PyYAML in, a ConfigError out.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from rch.errors import ConfigError

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node

_KEYS = ("hosts", "children", "vars")
_MERGE = "<<"
_DEPTH = 50
"""Groups within groups; an alias may lead back to where it stands."""


def check_groups(path: str, node: Node) -> None:
    """Raise ConfigError with the line where *node*, the tree of the inventory file *path*, is not made of groups."""
    top = _mapping(path, node, "an inventory", "all: {children: {rch_workers: {hosts: {NAME: {…}}}}}")
    if top is None or any(key.value == "plugin" for key, _ in top.value):
        return  # a plugin's own file
    for key, value in top.value:
        _check_group(path, str(key.value), value)


def _check_group(path: str, name: str, node: Node, depth: int = 0) -> None:
    group = _mapping(path, node, f"group {name}", "hosts, children and vars")
    for key, value in group.value if group is not None and depth < _DEPTH else ():
        word = str(key.value)
        if word == _MERGE:
            continue
        if word not in _KEYS:
            near = difflib.get_close_matches(word, _KEYS, 1)
            meant = f"did you mean {near[0]}?" if near else "a group has hosts, children and vars"
            line = key.start_mark.line + 1
            raise ConfigError(f"unknown key {word} in group {name}; {meant}", file=path, line=line, key=word)
        table = _mapping(path, value, f"{word} of group {name}", "NAME: {…}", word=True)
        for inner, what in table.value if table is not None and word != "vars" else ():
            if word == "children":
                _check_group(path, str(inner.value), what, depth + 1)
            else:
                _mapping(path, what, f"host {inner.value}", "its variables, NAME: {variable: value}")


def _mapping(path: str, node: Node, what: str, form: str, *, word: bool = False) -> MappingNode | None:
    """*node* if it is a mapping, None where it is empty. word: a single name counts as well, as it does for Ansible."""
    from yaml.nodes import MappingNode, ScalarNode

    if isinstance(node, MappingNode):
        return node
    if isinstance(node, ScalarNode) and (word or node.tag.endswith(":null")):
        return None
    raise ConfigError(f"{what} must be a mapping: {form}", file=path, line=node.start_mark.line + 1)
