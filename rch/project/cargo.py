"""What cargo would read: workspace root, path dependencies, configuration, target directory.

Cargo itself is not asked. It would need a toolchain, would cost 50 ms and more, may write Cargo.lock, and rustup's
proxy starts whatever program a repository's ``rust-toolchain.toml`` names, in a daemon that is not confined
(lessons SE-08). Its rules for finding things are few and documented, and the tests compare with the real one.
Parsed files are kept in memory under their stat data, so a warm call reads nothing.
"""

from __future__ import annotations

import functools
import glob
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rch.errors import NotOffloadable
from rch.paths import AbsPath, is_below

_KEPT_FILES = 4096
_DEPENDENCY_TABLES = (
    "dependencies", "dev-dependencies", "dev_dependencies", "build-dependencies", "build_dependencies",
)  # fmt: skip
_STEERS_FETCH = {
    "registry": ("credential-provider", "global-credential-providers"),
    "http": ("cainfo", "proxy-cainfo"),
}


@dataclass(frozen=True)
class Crate:
    """The part of one Cargo.toml that names places; every path relative to its directory.

    paths:      path dependencies of the package (normal, dev, build, per target).
    inherited:  names of dependencies with ``workspace = true``.
    sources:    target files that lie outside the package's directory.
    shared:     ``[workspace.dependencies]`` with a path: name -> path.
    overrides:  paths of ``[patch]`` and ``[replace]``.
    """

    is_package: bool = False
    is_workspace: bool = False
    workspace: str = ""
    members: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    inherited: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    shared: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class CargoConfig:
    """What the configuration files that cargo would read say about places (all absolute).

    files:      every file read, nearest first, includes behind the file that names them.
    target_dir: ``build.target-dir``; build_dir: ``build.build-dir`` ("" = not set; may hold {templates}).
    paths:      directories of ``paths``, ``[patch]`` and ``[source]`` tables.
    steers:     "FILE: KEY" of the first key outside CARGO_HOME that names a program, or a certificate, for fetching.
    named:      files that an include or ``--config`` names, other than from a file below CARGO_HOME.
    """

    files: tuple[AbsPath, ...] = ()
    target_dir: str = ""
    build_dir: str = ""
    paths: tuple[AbsPath, ...] = ()
    steers: str = ""
    named: tuple[AbsPath, ...] = ()


@dataclass(frozen=True)
class CargoLayout:
    """What one cargo command needs.

    root:       directory of the workspace (or of the package that stands alone), real.
    outside:    directories that must be there besides, real, each with the workspace it belongs to.
    manifests:  every Cargo.toml that was read, real.
    target_dirs: where cargo writes (target directory, and build directory where that is another one), absolute.
    """

    root: AbsPath
    outside: tuple[AbsPath, ...]
    manifests: tuple[AbsPath, ...]
    config: CargoConfig
    target_dirs: tuple[AbsPath, ...]


def find_manifest(directory: str) -> AbsPath | None:
    """The nearest Cargo.toml at or above *directory*, as cargo finds it."""
    while True:
        path = os.path.join(directory, "Cargo.toml")
        if os.path.isfile(path):
            return AbsPath(path)
        parent = os.path.dirname(directory)
        if parent == directory:
            return None
        directory = parent


def cargo_layout(
    manifest: str, cwd: str, env: Mapping[str, str], *, target_dir: str = "", config_words: tuple[str, ...] = ()
) -> CargoLayout:
    """Everything a cargo command with *manifest* (real path of a Cargo.toml), started in *cwd* (real), reads.

    target_dir, config_words: values of ``--target-dir`` and ``--config``.
    Raises NotOffloadable ``preflight-invalid-manifest`` or ``preflight-missing-file``: the tool here says it better.
    """
    root = workspace_root(os.path.dirname(manifest))
    config = read_config(cwd, env, config_words)
    closure = _Closure(root)
    closure.take_workspace()
    closure.take(os.path.dirname(manifest))
    for path in config.paths:
        if os.path.isfile(os.path.join(path, "Cargo.toml")):
            closure.take(path)
        else:
            closure.places.append(path)
    return CargoLayout(
        root=AbsPath(root),
        outside=tuple(dict.fromkeys(AbsPath(p) for p in closure.places if not is_below(p, root))),
        manifests=tuple(AbsPath(p) for p in closure.manifests),
        config=config,
        target_dirs=_target_dirs(root, cwd, env, config, target_dir),
    )


def workspace_root(directory: str) -> str:
    """The directory of the workspace that the package in *directory* (real) belongs to; itself if it has none."""
    crate = read_crate(os.path.join(directory, "Cargo.toml"))
    if crate.is_workspace:
        return directory
    if crate.workspace:
        return os.path.realpath(os.path.join(directory, crate.workspace))
    above = os.path.dirname(directory)
    while above != os.path.dirname(above):
        path = os.path.join(above, "Cargo.toml")
        if os.path.isfile(path) and not above.endswith("/target/package"):
            candidate = read_crate(path)
            if candidate.is_workspace and not _is_excluded(candidate, above, directory):
                return above
            if candidate.workspace:
                return os.path.realpath(os.path.join(above, candidate.workspace))
        above = os.path.dirname(above)
    return directory


def _is_excluded(crate: Crate, root: str, directory: str) -> bool:
    excluded = any(is_below(directory, os.path.normpath(os.path.join(root, path))) for path in crate.exclude)
    listed = any(is_below(directory, os.path.normpath(os.path.join(root, path))) for path in crate.members)
    return excluded and not listed


class _Closure:
    """Follows path dependencies from crate to crate."""

    def __init__(self, root: str) -> None:
        self._root = root
        self.places: list[str] = []
        self.manifests: dict[str, None] = {}
        self._seen: set[str] = set()

    def take_workspace(self) -> None:
        """The workspace's own manifest, its members, what it shares and what it overrides."""
        crate = self._read(self._root)
        for pattern in crate.members:
            self._take_members(pattern)
        for path in (*crate.shared.values(), *crate.overrides):
            self.take(self._absolute(self._root, path))
        if crate.is_package:
            self.take(self._root)

    def take(self, directory: str) -> None:
        """The package in *directory*, its workspace, and transitively what it depends on by path."""
        stack = [directory]
        while stack:
            directory = os.path.realpath(stack.pop())
            if directory in self._seen:
                continue
            self._seen.add(directory)
            crate = self._read(directory)
            home = workspace_root(directory)
            self.places.append(home)
            if not is_below(directory, home):
                self.places.append(directory)  # `package.workspace` points away from it
            stack += [self._absolute(directory, path) for path in crate.paths]
            self.places += [os.path.dirname(self._absolute(directory, path)) for path in crate.sources]
            if home != directory:
                shared = self._read(home).shared
                stack += [self._absolute(home, shared[name]) for name in crate.inherited if name in shared]

    def _take_members(self, pattern: str) -> None:
        full = os.path.join(self._root, pattern)
        if not glob.has_magic(pattern):
            self.take(os.path.normpath(full))
            return
        for path in sorted(glob.glob(full)):
            if os.path.isfile(os.path.join(path, "Cargo.toml")):
                self.take(path)

    def _read(self, directory: str) -> Crate:
        path = os.path.join(directory, "Cargo.toml")
        self.manifests[path] = None
        return read_crate(path)

    @staticmethod
    def _absolute(directory: str, path: str) -> str:
        return os.path.realpath(os.path.join(directory, path))


def read_crate(path: str) -> Crate:
    """The places that the Cargo.toml at *path* names."""
    return _crate_of(_parsed(path), os.path.dirname(path))


def _parsed(path: str) -> Mapping[str, Any]:
    """The TOML file at *path*, parsed once per state of the file."""
    try:
        status = os.stat(path)
        return _parse(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    except FileNotFoundError as error:
        raise NotOffloadable(
            f"{path} does not exist", code="preflight-missing-file", hint="run the command here"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NotOffloadable(
            f"{path} cannot be read: {error}", code="preflight-invalid-manifest", hint="run the command here"
        ) from error


@functools.lru_cache(maxsize=_KEPT_FILES)
def _parse(path: str, _size: int, _mtime_ns: int, _ctime_ns: int, _inode: int) -> Mapping[str, Any]:
    with open(path, "rb") as stream:
        return tomllib.load(stream)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _crate_of(toml: Mapping[str, Any], directory: str) -> Crate:
    package = _table(toml.get("package")) or _table(toml.get("project"))
    workspace = toml.get("workspace")
    tables = [_table(toml.get(name)) for name in _DEPENDENCY_TABLES]
    for target in _table(toml.get("target")).values():
        tables += [_table(_table(target).get(name)) for name in _DEPENDENCY_TABLES]
    paths: list[str] = []
    inherited: list[str] = []
    for table in tables:
        for name, value in table.items():
            detail = _table(value)
            if isinstance(detail.get("path"), str):
                paths.append(detail["path"])
            elif detail.get("workspace") is True:
                inherited.append(name)
    shared = {
        name: value["path"]
        for name, value in _table(_table(workspace).get("dependencies")).items()
        if isinstance(value, dict) and isinstance(value.get("path"), str)
    }
    own = package.get("workspace")
    return Crate(
        is_package=bool(package),
        is_workspace=isinstance(workspace, dict),
        workspace=own if isinstance(own, str) else "",
        members=_strings(_table(workspace).get("members")),
        exclude=_strings(_table(workspace).get("exclude")),
        paths=tuple(paths),
        inherited=tuple(inherited),
        sources=tuple(_outside_sources(toml, package, directory)),
        shared=shared,
        overrides=tuple(_overrides(toml)),
    )


def _overrides(toml: Mapping[str, Any]) -> Iterator[str]:
    for source in _table(toml.get("patch")).values():
        for value in _table(source).values():
            if isinstance(value, dict) and isinstance(value.get("path"), str):
                yield value["path"]
    for value in _table(toml.get("replace")).values():
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            yield value["path"]


def _outside_sources(toml: Mapping[str, Any], package: Mapping[str, Any], directory: str) -> Iterator[str]:
    named = [package.get("build"), _table(toml.get("lib")).get("path")]
    for kind in ("bin", "example", "test", "bench"):
        tables = toml.get(kind)
        named += [_table(table).get("path") for table in (tables if isinstance(tables, list) else [])]
    for path in named:
        if isinstance(path, str) and not is_below(os.path.normpath(os.path.join(directory, path)), directory):
            yield path


# Configuration


def cargo_home(env: Mapping[str, str]) -> AbsPath:
    """CARGO_HOME of the caller, as given."""
    given = env.get("CARGO_HOME")
    return AbsPath(os.path.normpath(given or os.path.join(env.get("HOME", "/"), ".cargo")))


def read_config(cwd: str, env: Mapping[str, str], words: tuple[str, ...] = ()) -> CargoConfig:
    """The configuration that cargo reads for a command started in *cwd* (real): up the tree, then CARGO_HOME.

    words: values of ``--config``: a file, or ``key = value``; they win.
    """
    found: list[tuple[str, Mapping[str, Any], str]] = []  # file ("" = a word), content, base of relative paths
    for word in words:
        if "=" in word and not os.path.isfile(os.path.join(cwd, word)):
            try:
                found.append(("", tomllib.loads(word), cwd))
            except tomllib.TOMLDecodeError as error:
                raise NotOffloadable(
                    f"--config {word} cannot be read: {error}", code="preflight-invalid-manifest"
                ) from error
        else:
            path = os.path.realpath(os.path.join(cwd, word))
            found += _with_includes(path, os.path.dirname(path))
    plain = {path for path, _ in config_files(cwd, env)}
    for path, base in config_files(cwd, env):
        found += _with_includes(path, base)
    home = cargo_home(env)
    theirs = [(path, content) for path, content, _ in found if not is_below(path, home)]
    return CargoConfig(
        steers=next((f"{path or '--config'}: {key}" for path, content in theirs for key in _steering(content)), ""),
        named=tuple(AbsPath(path) for path, _ in theirs if path and path not in plain),
        files=tuple(dict.fromkeys(AbsPath(path) for path, _, _ in found if path)),
        target_dir=_first_path(found, "target-dir"),
        build_dir=_first_path(found, "build-dir"),
        paths=tuple(dict.fromkeys(AbsPath(path) for path in _config_paths(found))),
    )


def cargo_aliases(cwd: str, env: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Name -> words of every ``[alias]`` that cargo would know in *cwd*; {} where its configuration cannot be read."""
    found: dict[str, tuple[str, ...]] = {}
    try:
        for path, base in config_files(os.path.realpath(cwd), env):
            for _, content, _ in _with_includes(path, base):
                for name, meant in _table(content.get("alias")).items():
                    words = meant.split() if isinstance(meant, str) else meant
                    if isinstance(words, list) and all(isinstance(word, str) for word in words):
                        found.setdefault(name, tuple(words))
    except NotOffloadable:
        return {}
    # A variable beats the files; such a name is cargo's to expand.
    return {name: words for name, words in found.items() if f"CARGO_ALIAS_{name.upper().replace('-', '_')}" not in env}


def config_files(cwd: str, env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The configuration files for *cwd* (real), nearest first, each with the directory of its relative paths."""
    seen: set[str] = set()
    directory = cwd
    homes = []
    while True:
        homes.append(os.path.join(directory, ".cargo"))
        parent = os.path.dirname(directory)
        if parent == directory:
            break
        directory = parent
    homes.append(cargo_home(env))
    for home in homes:
        for name in ("config", "config.toml"):  # cargo reads the first if both are there
            path = os.path.join(home, name)
            if os.path.isfile(path):
                if os.path.realpath(path) not in seen:
                    seen.add(os.path.realpath(path))
                    yield path, os.path.dirname(home)
                break


def _with_includes(path: str, base: str, depth: int = 0) -> list[tuple[str, Mapping[str, Any], str]]:
    content = _parsed(path)
    found = [(path, content, base)]
    include = content.get("include")
    for item in include if isinstance(include, list) else [include]:
        name = item.get("path") if isinstance(item, dict) else item
        if isinstance(name, str) and depth < 8:
            where = os.path.join(os.path.dirname(path), name)
            if os.path.isfile(where):
                found += _with_includes(where, base, depth + 1)
    return found


def _steering(content: Mapping[str, Any]) -> Iterator[str]:
    """Keys of a configuration that decide which program fetches, or whom it believes."""
    for table, names in _STEERS_FETCH.items():
        yield from (f"{table}.{name}" for name in names if name in _table(content.get(table)))
    if content.get("credential-alias"):
        yield "credential-alias"
    for name, registry in _table(content.get("registries")).items():
        if "credential-provider" in _table(registry):
            yield f"registries.{name}.credential-provider"


def _first_path(found: list[tuple[str, Mapping[str, Any], str]], key: str) -> str:
    for _, content, base in found:
        value = _table(content.get("build")).get(key)
        if isinstance(value, str) and value:
            return value if value.startswith("{") else os.path.normpath(os.path.join(base, value))
    return ""


def _config_paths(found: list[tuple[str, Mapping[str, Any], str]]) -> Iterator[str]:
    for _, content, base in found:
        named = [*_strings(content.get("paths")), *_overrides({"patch": content.get("patch")})]
        for source in _table(content.get("source")).values():
            named += [v for k in ("directory", "local-registry") if isinstance(v := _table(source).get(k), str)]
        for path in named:
            yield os.path.realpath(os.path.join(base, path))


def _target_dirs(root: str, cwd: str, env: Mapping[str, str], config: CargoConfig, given: str) -> tuple[AbsPath, ...]:
    from_env = env.get("CARGO_TARGET_DIR") or env.get("CARGO_BUILD_TARGET_DIR") or ""
    if given or from_env:
        target = os.path.normpath(os.path.join(cwd, given or from_env))
    else:
        target = config.target_dir or os.path.join(root, "target")
    build = env.get("CARGO_BUILD_BUILD_DIR") or config.build_dir
    found = [target]
    if build:
        build = build.replace("{workspace-root}", root).replace("{cargo-cache-home}", cargo_home(env))
        found.append(os.path.normpath(os.path.join(cwd, build.split("{", 1)[0])))
    return tuple(dict.fromkeys(AbsPath(path) for path in found))
