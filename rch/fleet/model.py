"""A worker: what the inventory declares and what was observed, never mixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rch.paths import AbsPath


@dataclass(frozen=True)
class Declared:
    """Registry variables of one inventory host (design.md 6.6); every value is a literal."""

    name: str
    host: str
    port: int | None = None
    user: str = "rch"
    ssh_key: AbsPath | None = None
    known_hosts: AbsPath | None = None
    fleet_known_hosts: AbsPath | None = None
    """What role workstation gathered, beside the user's own file; never set where the inventory names a file."""
    ssh_options: tuple[str, ...] = ()
    """Further words for ssh: ``-o Keyword=value`` and ``-F FILE`` pairs, as the inventory gives them."""
    executor: str = "ssh"
    slots: int | None = None
    slots_per_core: float = 1.0
    priority: int = 100
    enabled: bool = True
    cache_dir: str = "~/.rch"
    tags: tuple[str, ...] = ()
    """The host's groups (without all, ungrouped and rch_workers) and ``rch_tags``, sorted."""
    description: str = ""
    embedded: bool = False
    python: str = "python3"
    connect_timeout_s: float = 5.0
    session: str = ""
    workdir: str = ""
    platform: str = ""
    addr: str = ""
    tunnel: str = "auto"


@dataclass(frozen=True)
class Observed:
    """Facts gathered by a playbook or a probe; ``facts`` is the content of rch.fact, ``at`` ISO 8601 UTC."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    at: str = ""


@dataclass(frozen=True)
class Worker:
    declared: Declared
    observed: Observed = field(default_factory=Observed)

    @property
    def name(self) -> str:
        return self.declared.name


@dataclass(frozen=True)
class Registry:
    """The compiled registry: all workers, and the digest of the sources it was compiled from."""

    workers: Mapping[str, Worker]
    digest: str
    sources: tuple[AbsPath, ...] = ()
