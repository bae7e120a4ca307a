"""Where each value of a worker comes from: file and line of the inventory, or "default"."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rch.fleet import inventory
from rch.fleet.declared import groups_of, hosts_of
from rch.fleet.model import Declared
from rch.fleet.registry import ask_ansible
from rch.fleet.variables import GROUP
from rch.paths import AbsPath

_ARGUMENTS = ("ansible_ssh_common_args", "ansible_ssh_extra_args")

SOURCES: Mapping[str, tuple[str, ...]] = {
    "host": ("ansible_host",),
    "port": ("ansible_port",),
    "user": ("rch_user", "ansible_user"),
    "ssh_key": ("rch_ssh_key", "ansible_ssh_private_key_file"),
    "known_hosts": _ARGUMENTS,
    "ssh_options": _ARGUMENTS,
    "executor": ("rch_executor", "ansible_connection"),
    "python": ("ansible_python_interpreter",),
    "connect_timeout_s": ("ansible_ssh_timeout", "ansible_timeout"),
    "tags": ("rch_tags",),
}
"""Field of Declared -> the variables that may give it, the stronger first; other fields are ``rch_<field>``."""

_OWN = ("rch_user", "rch_ssh_key")
"""rchd's own; what stands beside them is the administrator's, and rchd's only on workers without an account of ours."""


def origins(source: AbsPath, workers: Mapping[str, Declared]) -> dict[str, dict[str, str]]:
    """Worker -> field of Declared -> "FILE:LINE", "inventory" (a program or plugin said it), "groups" or "default"."""
    listing = ask_ansible(source)
    paths = inventory.files(inventory.stamps(source))
    hostvars = listing.get("_meta", {}).get("hostvars", {})
    groups = groups_of(listing)
    return {
        name: _of_worker(paths, workers[name], groups[name], hostvars.get(name, {}))
        for name in hosts_of(listing, GROUP)
        if name in workers
    }


def _of_worker(
    paths: list[AbsPath], declared: Declared, groups: list[str], variables: Mapping[str, Any]
) -> dict[str, str]:
    found = {}
    name = declared.name
    for field in dataclasses.fields(Declared):
        if field.name == "name":
            continue
        names = SOURCES.get(field.name, (f"rch_{field.name}",))
        if names[0] in _OWN and not variables.get("rch_embedded"):
            names = names[:1]
        if names is _ARGUMENTS and getattr(declared, field.name) == field.default:
            names = ()  # arguments were given, and none of them is about this
        given = next((one for one in names if variables.get(one) is not None), None)
        if given is None:
            found[field.name] = "groups" if field.name == "tags" else "default"
            continue
        file, line = inventory.locate(paths, name, groups, given, variables[given])
        found[field.name] = f"{file}:{line}" if file else "inventory"
    return found
