"""All layers as one: ``load_config`` and :class:`Config`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import PrivateAttr

from rch.config import trust as trust_store
from rch.config.keys import Path, dotted, key_rows, plain, row_of, split_dotted, unknown_key
from rch.config.layers import Layer, LayerFile, Origin, check_flat, identity_of, read_layer
from rch.config.places import SYSTEM_FILE, Places, places
from rch.config.schema import Settings
from rch.config.switches import NAMES, Switches, read_switches
from rch.errors import ConfigError
from rch.paths import AbsPath

PROJECT_FILE = ".rch/config.toml"


@dataclass(frozen=True)
class _Held:
    """What stands beside the values of a Config."""

    places: Places
    project_root: AbsPath | None
    files: tuple[LayerFile, ...]
    switches: Switches
    origins: Mapping[Path, Origin]
    allowed: tuple[tuple[str, ...], ...]


class Config(Settings):
    """The configuration of one command: the tables of :class:`rch.config.schema.Settings` (``config.transfer.git``).

    Frozen; the properties below apply the rules that a single key does not show.
    """

    _held: _Held = PrivateAttr()

    @property
    def places(self) -> Places:
        return self._held.places

    @property
    def switches(self) -> Switches:
        """The environment switches that went into this configuration."""
        return self._held.switches

    @property
    def project_root(self) -> AbsPath | None:
        """The directory that holds ``.rch/``, if there is one above the cwd."""
        return self._held.project_root

    @property
    def project_file(self) -> AbsPath | None:
        """Where the project's file is or would be."""
        return AbsPath(os.path.join(self.project_root, PROJECT_FILE)) if self.project_root else None

    @property
    def files(self) -> tuple[LayerFile, ...]:
        """The files that were read, lowest layer first."""
        return self._held.files

    @property
    def enabled(self) -> bool:
        return self.general.enabled and self.project.enabled

    @property
    def local_only(self) -> bool:
        return self.general.local_only or self.project.local_only

    @property
    def socket_path(self) -> AbsPath:
        return AbsPath(self.daemon.socket_path or self.places.socket)

    @property
    def log_file(self) -> AbsPath:
        path = self.general.log_file
        if path is None:
            return self.places.log_file
        return AbsPath(self.places.home + path[1:] if path.startswith("~/") else path)

    @property
    def max_transfer_mb(self) -> int:
        """The limit of one push."""
        return self.transfer.max_size_mb or self.transfer.max_transfer_size_mb

    @property
    def exclude_patterns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.transfer.exclude.patterns, *self.transfer.exclude_extra)))

    @property
    def allowed(self) -> tuple[tuple[str, ...], ...]:
        """Lists of worker and group names; a worker must be in every one of them (none: all workers)."""
        return self._held.allowed

    def refusal(self, worker: str, groups: Iterable[str]) -> str:
        """Why the configuration keeps *worker* (a member of *groups*) out of the choice, or ""."""
        names = {worker, *groups}
        if blocked := names.intersection(self.workers.blocked):
            return f"workers.blocked names {min(blocked)}"
        for allowed in self.allowed:
            if not names.intersection(allowed):
                return f"not in workers.allowed ({', '.join(allowed)})"
        return ""

    @property
    def untrusted(self) -> tuple[str, ...]:
        """Keys of the project file that are inert until ``rch config trust``."""
        return tuple(sorted(dotted(path) for path, origin in self._held.origins.items() if origin.untrusted))

    def untrusted_notice(self) -> str:
        """One line about inert keys, once per contents of the project file; "" otherwise."""
        project = next((file for file in self.files if file.layer is Layer.PROJECT), None)
        if project is None or not self.untrusted:
            return ""
        if not trust_store.announce(self.places.trust_file, project.path, project.digest):
            return ""
        return f"{project.path} is not trusted: {', '.join(self.untrusted)} have no effect; next: rch config trust"

    def origin(self, key: str) -> Origin:
        """Where the value of *key* ("transfer.git", "execution.env.CC") comes from; raises ConfigError."""
        path = self._path(key)
        origins = self._held.origins
        if path in origins:
            return origins[path]
        below = [origin for where, origin in origins.items() if where[: len(path)] == path]
        return max(below, key=lambda origin: (origin.layer, origin.line), default=Origin(Layer.DEFAULT))

    def value(self, key: str) -> Any:
        """The value of *key* as JSON can show it; raises ConfigError for an unknown key."""
        found: Any = self
        for part in self._path(key):
            if isinstance(found, dict):
                found = found.get(part)
            else:
                found = next(
                    getattr(found, name)
                    for name, field in type(found).model_fields.items()
                    if (field.alias or name) == part
                )
            if found is None:
                return None
        return plain(found)

    def rows(self) -> list[tuple[str, Any, Origin]]:
        """Every key with its value and origin, in the order of the schema; open tables by name."""
        found: list[tuple[str, Any, Origin]] = []
        concrete = set(self._held.origins)
        for row in key_rows().values():
            if row.open or "*" in row.path:
                matching = sorted(path for path in concrete if row_of(path) is row)
            else:
                matching = [row.path]
            for path in matching:
                name = dotted(path)
                found.append((name, self.value(name), self.origin(name)))
        return found

    def _path(self, key: str) -> Path:
        path = split_dotted(key)
        if path is None or row_of(path) is None:
            raise unknown_key(key, path)
        return path


def find_project_root(cwd: str, home: str) -> AbsPath | None:
    """The nearest directory at or above *cwd* that holds ``.rch/``; not the home, where a worker has its cache."""
    here = os.path.normpath(cwd)
    while True:
        if here != home and os.path.isdir(os.path.join(here, ".rch")):
            return AbsPath(here)
        parent = os.path.dirname(here)
        if parent == here:
            return None
        here = parent


_cache: dict[tuple[Any, ...], tuple[tuple[Any, ...], Config]] = {}


def load_config(
    cwd: str,
    env: Mapping[str, str],
    *,
    flags: Mapping[str, Any] | None = None,
    state_dir: str | None = None,
    system_file: str = SYSTEM_FILE,
) -> Config:
    """The configuration of a command in *cwd* (or of the project root *cwd*) with the caller's environment *env*.

    flags:     dotted key -> value, from options; the highest layer.
    state_dir: stands for RCH_STATE_DIR; rchd gives its own.
    Files that have not changed are not read again (0.1 ms). Raises ConfigError: ``bad-config`` with file and line, or
    ``bad-environment``.
    """
    own = tuple(
        (name, env[name])
        for name in (*NAMES, "HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME")
        if name in env
    )
    chosen = tuple(sorted((name, repr(value)) for name, value in (flags or {}).items()))
    where = places(env, state_dir=state_dir, system_file=system_file)
    root = find_project_root(cwd, where.home)
    project = AbsPath(os.path.join(root, PROJECT_FILE)) if root else None
    state = (
        identity_of(where.system_file),
        identity_of(where.user_file),
        identity_of(project) if project else None,
        identity_of(where.trust_file),
    )
    cache_key = (root, own, chosen, where)
    held = _cache.get(cache_key)
    if held is not None and held[0] == state:
        return held[1]
    switches = read_switches(dict(own))
    if switches.config and state[1] is None:
        raise ConfigError(
            "RCH_CONFIG names a file that does not exist",
            file=where.user_file,
            code="bad-environment",
            hint="unset RCH_CONFIG",
        )
    files = [read_layer(where.system_file, Layer.SYSTEM), read_layer(where.user_file, Layer.USER)]
    if project and root:
        files.append(read_layer(project, Layer.PROJECT, below=root))
    config = merge([file for file in files if file is not None], switches, flags or {}, where, root)
    if len(_cache) > 512:
        _cache.clear()
    _cache[cache_key] = (state, config)
    return config


def merge(
    files: list[LayerFile],
    switches: Switches,
    flags: Mapping[str, Any],
    where: Places,
    root: AbsPath | None,
) -> Config:
    """Put the layers on top of one another (coverage A-2)."""
    found: dict[Path, list[tuple[Any, Origin]]] = {}
    inert: dict[Path, Origin] = {}
    for file in sorted(files, key=lambda file: file.layer):
        trusted = file.layer is not Layer.PROJECT or trust_store.is_trusted(where.trust_file, file.path, file.digest)
        # Against the lower layers only: what a project's other keys say does not excuse this one.
        below = {path: _merged(path, values)[0] for path, values in found.items()}
        for path, value in file.values.items():
            origin = Origin(file.layer, file.path, file.line(path))
            if not trusted and _widens(path, value, below):
                inert[path] = Origin(file.layer, file.path, origin.line, untrusted=True, inert=plain(value))
            else:
                found.setdefault(path, []).append((value, origin))
    for path, value, variable in _from_switches(switches):
        found.setdefault(path, []).append((value, Origin(Layer.ENVIRONMENT, variable)))
    for name, value in flags.items():
        for path, checked in check_flat(split_dotted(name) or (name,), value, Layer.FLAG, "").items():
            found.setdefault(path, []).append((checked, Origin(Layer.FLAG)))

    nested: dict[str, Any] = {}
    origins: dict[Path, Origin] = {}
    for path, values in found.items():
        value, origins[path] = _merged(path, values)
        table = nested
        for part in path[:-1]:
            table = table.setdefault(part, {})
        table[path[-1]] = value
    origins.update(inert)
    config = Config.model_validate(nested)
    allowed = [value for value, _ in found.get(("workers", "allowed"), []) if value]
    by_layer = {origin.layer: value for value, origin in found.get(("workers", "allowed"), []) if value}
    if Layer.USER in by_layer:
        by_layer.pop(Layer.SYSTEM, None)
    config._held = _Held(  # noqa: SLF001 - made here
        places=where,
        project_root=root,
        files=tuple(files),
        switches=switches,
        origins=origins,
        allowed=tuple(by_layer.values()) if allowed else (),
    )
    return config


def _merged(path: Path, values: list[tuple[Any, Origin]]) -> tuple[Any, Origin]:
    """The effective one of *values* (lowest layer first)."""
    row = row_of(path)
    assert row is not None
    top = values[-1]
    of_files = [item for item in values if item[1].layer <= Layer.PROJECT]
    if top[1].layer > Layer.PROJECT or row.merge in ("replace", "narrow"):
        return top
    if row.merge == "add":
        added = dict.fromkeys(name for value, _ in of_files for name in value)
        return tuple(added), top[1]
    deciding = row.merge == "any"  # one true is enough; for "all" one false is
    return next(((value, origin) for value, origin in of_files if value is deciding), top)


def _widens(path: Path, value: Any, below: Mapping[Path, Any]) -> bool:
    """True when a project's value needs trust: it runs programs or widens what leaves the machine (coverage A-3)."""
    row = row_of(path)
    assert row is not None
    if row.needs_trust:
        return True
    lower = below.get(path, row.default)
    if row.trust == "full":
        return bool(value == "full" and lower != "full")
    if row.trust == "on":
        return value is True and lower is False
    if row.trust == "off":
        return value is False and lower is True
    if row.trust == "auto":
        return bool(value == "auto" and lower != "auto")
    if row.trust == "raise":
        users = ("transfer", "max_transfer_size_mb")
        return bool(value > below.get(users, key_rows()[users].default))
    return False


def _from_switches(switches: Switches) -> Iterable[tuple[Path, Any, str]]:
    """The keys that a variable stands for."""
    if switches.enabled is not None:
        yield ("general", "enabled"), switches.enabled, "RCH_ENABLED"
        if switches.enabled:
            yield ("project", "enabled"), True, "RCH_ENABLED"
    if switches.local_only is not None:
        yield ("general", "local_only"), switches.local_only, "RCH_LOCAL_ONLY"
        if not switches.local_only:
            yield ("project", "local_only"), False, "RCH_LOCAL_ONLY"
    if switches.require_remote is not None:
        yield ("execution", "fallback_to_local"), not switches.require_remote, "RCH_REQUIRE_REMOTE"
    if switches.compression is not None:
        yield ("transfer", "compression_level"), switches.compression, "RCH_COMPRESSION"
        yield ("artifacts", "compression_level"), switches.compression, "RCH_COMPRESSION"
    if switches.verbose is not None:
        yield ("general", "verbose"), switches.verbose, "RCH_QUIET" if switches.quiet else "RCH_VERBOSE"
    if switches.log_level is not None:
        yield ("general", "log_level"), switches.log_level, "RCH_LOG_LEVEL"
