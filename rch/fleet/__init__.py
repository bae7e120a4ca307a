"""Inventory (declared) and observed facts -> Workers.

The Ansible inventory is the registry. Asking Ansible takes half a second, so the answer is compiled into
``<state>/registry.json``, keyed by the stat data of the inventory's files; commands read only that.
"""

from __future__ import annotations

from rch.fleet.inventory import find_inventory
from rch.fleet.model import Declared, Observed, Registry, Worker
from rch.fleet.registry import (
    compile_registry,
    is_stale,
    load_registry,
    read_registry,
    refresh_if_stale,
)

__all__ = [
    "Declared",
    "Observed",
    "Registry",
    "Worker",
    "compile_registry",
    "find_inventory",
    "is_stale",
    "load_registry",
    "read_registry",
    "refresh_if_stale",
]
