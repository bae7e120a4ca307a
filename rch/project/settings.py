"""The part of the configuration that says what travels (transfer.*, project.*, execution.env)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

DEFAULT_EXCLUDES = ("target/", "node_modules/", "*.rlib", "*.rmeta", "*.o", "*.a", "*.so", "*.dylib")
"""``transfer.exclude.patterns`` by default (coverage A-16); they concern untracked files only."""

OBJECT_PATTERNS = frozenset(("*.rlib", "*.rmeta", "*.o", "*.a", "*.so", "*.dylib"))
"""Not applied to kinds whose git-ignored files are inputs (make, cmake, ninja, meson, cc)."""

_NO_ENV: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class ProjectSettings:
    """Merged configuration of one command, as far as the project side needs it.

    exclude_patterns, exclude_extra: gitignore syntax, for untracked files.
    force_include:  gitignore syntax, wins over every exclusion (trusted project files only; checked by rch.config).
    git:            ``transfer.git``: "head", "none" or "full".
    max_transfer_size_mb: megabytes (10**6 bytes); also the limit of one git-ignored input.
    execution_env:  ``execution.env``: name -> value, beats what the caller has.
    id, name:       ``project.id``, ``project.name``; "" = from the root.
    """

    exclude_patterns: tuple[str, ...] = DEFAULT_EXCLUDES
    exclude_extra: tuple[str, ...] = ()
    force_include: tuple[str, ...] = ()
    git: str = "head"
    max_transfer_size_mb: int = 500
    execution_env: Mapping[str, str] = field(default_factory=lambda: _NO_ENV)
    id: str = ""
    name: str = ""

    @property
    def max_file_bytes(self) -> int:
        return self.max_transfer_size_mb * 1_000_000


@dataclass(frozen=True)
class ManifestRules:
    """What :func:`take_manifest` leaves out or lets in beside what git says.

    build_dirs are those of the root; their untracked files are nobody's to push.
    required:  paths that belong to the manifest although git ignores them (Cargo.lock, .cargo/config.toml, …); one that
               ends in "/" is a directory of which everything counts if git ignores it (a generated crate).
    """

    exclude: tuple[str, ...] = DEFAULT_EXCLUDES
    exclude_extra: tuple[str, ...] = ()
    force_include: tuple[str, ...] = ()
    max_file_bytes: int = 500_000_000
    required: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: ProjectSettings, required: tuple[str, ...] = ()) -> ManifestRules:
        return cls(
            exclude=settings.exclude_patterns,
            exclude_extra=settings.exclude_extra,
            force_include=settings.force_include,
            max_file_bytes=settings.max_file_bytes,
            required=required,
        )
