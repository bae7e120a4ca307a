"""The registry variables: which names exist and which literals each may hold (design.md 6.6).

Pure: a table and the functions that read it. Types are strict, because YAML has them: a number in quotes is text
and text is not a number of slots.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GROUP = "rch_workers"
"""Every host of this inventory group is a worker."""

_TEMPLATE_MARKS = ("{{", "{%", "{#")
"""What makes a string a template; registry variables are literals (lessons PD-06)."""


@dataclass(frozen=True)
class Variable:
    """One registry variable: ``kind`` names the check, ``what`` completes the sentence "<name> must be …"."""

    name: str
    kind: str
    what: str
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()
    pattern: str = ""

    def accepts(self, value: Any) -> bool:
        if self.kind == "bool":
            return isinstance(value, bool)
        if self.kind == "int":
            return type(value) is int and self.low <= value <= self.high
        if self.kind == "number":
            return type(value) in (int, float) and self.low <= value <= self.high
        if self.kind == "list":
            return isinstance(value, list) and all(
                isinstance(one, str) and re.fullmatch(self.pattern, one) for one in value
            )
        if not isinstance(value, str) or any(mark in value for mark in _TEMPLATE_MARKS):
            return False
        if self.choices:
            return value in self.choices
        return re.fullmatch(self.pattern, value) is not None


_TEXT = r"[^\x00-\x1f\x7f]*"
_WORKSTATION_PATH = r"(/|~/)[^\x00-\x1f\x7f]+"
# On a worker the path travels through rsync's remote side and a shell's words, so it is kept to plain characters.
_WORKER_PATH = r"(~|/(?!\.\.?(/|$))[A-Za-z0-9_@%+=:,.-]+)(/(?!\.\.?(/|$))[A-Za-z0-9_@%+=:,.-]+)+/?"

_TABLE = (
    Variable("rch_slots", "int", "a whole number from 1 to 1024", 1, 1024),
    Variable("rch_slots_per_core", "number", "a number from 0.05 to 16", 0.05, 16),
    Variable("rch_priority", "int", "a whole number from 0 to 1000", 0, 1000),
    Variable("rch_enabled", "bool", "true or false"),
    Variable(
        "rch_cache_dir",
        "text",
        "an absolute path of at least two components or one below ~/, without spaces and '..'",
        pattern=_WORKER_PATH,
    ),
    Variable("rch_executor", "text", "one of ssh, local, mock", choices=("ssh", "local", "mock")),
    Variable("rch_user", "text", "the name of an account", pattern=r"[A-Za-z_][A-Za-z0-9_.-]{0,31}"),
    Variable("rch_ssh_key", "text", "the path of a private key, absolute or below ~/", pattern=_WORKSTATION_PATH),
    Variable(
        "rch_tags", "list", "a list of words of letters, digits and _ . : -", pattern=r"[A-Za-z0-9_][A-Za-z0-9_.:-]*"
    ),
    Variable("rch_session", "text", "the name of a session", pattern=r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"),
    Variable("rch_workdir", "text", "an absolute path or one below ~/", pattern=r"(/|~)" + _TEXT),
    Variable("rch_platform", "text", "one word", pattern=r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,63}"),
    Variable("rch_description", "text", "one line of text", pattern=_TEXT),
    Variable("rch_addr", "text", "an address without spaces", pattern=r"[^\x00-\x20\x7f]+"),
    Variable("rch_tunnel", "text", "auto or off", choices=("auto", "off")),
    Variable("rch_embedded", "bool", "true or false"),
    Variable("ansible_host", "text", "a host name or an address", pattern=r"[A-Za-z0-9_\[:][A-Za-z0-9_.:%\]-]*"),
    Variable("ansible_port", "int", "a whole number from 1 to 65535", 1, 65535),
    Variable("ansible_user", "text", "the name of an account", pattern=r"[A-Za-z_][A-Za-z0-9_.@\\-]{0,63}"),
    Variable("ansible_connection", "text", "the name of a connection plugin", pattern=r"[a-z][a-z0-9_.]*"),
    Variable("ansible_python_interpreter", "text", "an interpreter's path or auto", pattern=r"[^\x00-\x1f\x7f]+"),
    Variable("ansible_ssh_private_key_file", "text", "the path of a private key", pattern=r"[^\x00-\x1f\x7f]+"),
    Variable("ansible_ssh_common_args", "text", "arguments of ssh", pattern=_TEXT),
    Variable("ansible_ssh_extra_args", "text", "arguments of ssh", pattern=_TEXT),
    Variable("ansible_timeout", "int", "a whole number of seconds from 1 to 300", 1, 300),
    Variable("ansible_ssh_timeout", "int", "a whole number of seconds from 1 to 300", 1, 300),
)

VARIABLES: Mapping[str, Variable] = {variable.name: variable for variable in _TABLE}

ROLE_PREFIX = "rch_worker_"
"""Inputs of the role rch_worker share our prefix; the role's own preflight checks them."""


@dataclass(frozen=True)
class Finding:
    """One variable of one host that breaks the schema; ``message`` is a whole sentence without a place."""

    host: str
    variable: str
    value: Any
    message: str
    nearest: str = ""


def shown(value: Any) -> str:
    """*value* as a person wrote it, short enough for a line."""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "..."


def check_host(host: str, variables: Mapping[str, Any]) -> list[Finding]:
    """Every registry variable of *host* that breaks the schema, in the order of the inventory's answer."""
    findings = []
    for name, value in variables.items():
        variable = VARIABLES.get(name)
        if variable is not None:
            if variable.accepts(value):
                continue
            if isinstance(value, str) and any(mark in value for mark in _TEMPLATE_MARKS):
                message = f"{host}: {name} is a template ({shown(value)}); registry variables are literals"
            elif isinstance(value, Mapping) and "__ansible_vault" in value:
                message = f"{host}: {name} is encrypted; registry variables are read without a vault password"
            else:
                message = f"{host}: {name} must be {variable.what}, got {shown(value)}"
            findings.append(Finding(host, name, value, message))
        elif name.startswith("rch_") and not name.startswith(ROLE_PREFIX):
            close = difflib.get_close_matches(name, [known for known in VARIABLES if known.startswith("rch_")], 1, 0.6)
            nearest = close[0] if close else ""
            tail = f"; did you mean {nearest}?" if nearest else ""
            findings.append(Finding(host, name, value, f"{host}: unknown registry variable {name}{tail}", nearest))
    return findings
