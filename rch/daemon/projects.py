"""The project of one command as rchd sees it: its roots, held while it runs, and what would travel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rch.config import Config
from rch.config.places import Places
from rch.daemon.root_locks import RootLocks
from rch.intercept.decision import Kind
from rch.order import Order
from rch.project import ProjectSettings, build_project, discover_roots
from rch.project.model import Project, Root
from rch.transfer import shared_tree_paths


class Projects:
    """Projects of all orders of one rchd."""

    def __init__(self, places: Places, client: str, locks: RootLocks) -> None:
        self._places = places
        self._client = client
        self._locks = locks

    @contextlib.contextmanager
    def hold_roots(self, order: Order, kind: Kind, config: Config) -> Iterator[tuple[Root, ...]]:
        """The roots of the command, held."""
        roots = discover_roots(
            order.words,
            kind,
            order.cwd,
            order.env,
            settings_of(config),
            state_dir=self._places.state,
            client_id=self._client,
            uid=order.uid,
        ).roots
        with self._locks.hold(roots):
            yield roots

    def project(self, order: Order, kind: Kind, config: Config) -> Project:
        """Roots, manifests, tools and environment of the command, as they are now."""
        return build_project(
            order.words,
            kind,
            order.cwd,
            order.env,
            settings_of(config),
            state_dir=self._places.state,
            client_id=self._client,
            uid=order.uid,
            rehash=order.options.no_cache,
            also=lambda root: shared_tree_paths(self._places.state, root),
            confined=order.confined,
        )


def settings_of(config: Config) -> ProjectSettings:
    """The part of the configuration that says what travels."""
    return ProjectSettings(
        exclude_patterns=tuple(config.transfer.exclude.patterns),
        exclude_extra=tuple(config.transfer.exclude_extra),
        force_include=tuple(config.transfer.force_include),
        git=config.transfer.git,
        max_transfer_size_mb=config.max_transfer_mb,
        execution_env=dict(config.execution.env),
        id=config.project.id or "",
        name=config.project.name or "",
    )
