"""One command -> its Project: roots, manifests, tools, environment, everything a worker has to be told."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping, Sequence

from rch.errors import NotOffloadable
from rch.intercept.decision import Kind
from rch.paths import AbsPath, Argv
from rch.project import golang
from rch.project._memory import uncollected
from rch.project.arguments import family, named_places
from rch.project.cargo import cargo_home
from rch.project.environment import job_environment
from rch.project.extra import extra_files
from rch.project.gitdir import git_overlay
from rch.project.links import LinkRecord, outward_links
from rch.project.listing import list_root
from rch.project.manifest import manifest_of
from rch.project.model import ExtraFile, Manifest, Project, Root, ToolIdentity
from rch.project.registry import cargo_cache_files, fetch_stamp, fetch_step
from rch.project.roots import Discovery, discover_roots
from rch.project.settings import ManifestRules, ProjectSettings
from rch.project.statcache import stat_cache
from rch.project.tools import identify_tools, rustup_home


def build_project(
    argv: Sequence[str],
    kind: Kind,
    cwd: AbsPath,
    env: Mapping[str, str],
    settings: ProjectSettings,
    state_dir: AbsPath,
    client_id: str,
    uid: int,
    *,
    rehash: bool = False,
    also: Callable[[Root], Collection[str]] | None = None,
    confined: bool = False,
) -> Project:
    """Everything one command needs from this machine, as it is now.

    argv:   the build's own words, the tool first. cwd, env: the caller's.
    rehash: read every file again (``--no-cache``).
    also:   per root: tree paths that a worker returned earlier; they belong to the manifest even if git ignores them.
    confined: the caller is in a sandbox. What its environment names is started or read only where this process's own
            environment has it too, and a repository has to lie in what the caller has shown (lessons SE-08).
    The roots are those of :func:`discover_roots` with the same arguments, or fewer: callers have proved those.
    Raises NotOffloadable with the code of what stands in the way.
    """
    found = discover_roots(argv, kind, cwd, env, settings, state_dir=state_dir, client_id=client_id, uid=uid)
    if confined:
        _check_places(kind, found, env)
    manifests: dict[str, Manifest] = {}
    for root in found.roots:
        extra = also(root) if also is not None else ()
        manifests[root.key] = _manifest(root, found, kind, settings, state_dir, extra, rehash=rehash, confined=confined)
    main = found.roots[0]
    tools = identify_tools(
        kind.tools,
        found.directory,
        env,
        toolchain=named_places(argv, kind).toolchain,
        writable=[root.real for root in found.roots] + [os.path.realpath(cwd)],
        confined=confined,
    )
    tool = family(kind)
    lock = _lock(found) if found.cargo else None
    files = list(found.extra_files)
    if "rust" in kind.tools:
        files += extra_files([os.path.join(rustup_home(env), "settings.toml")])
    given = {**env, **golang.go_settings(env)} if found.go else env
    job_env = job_environment(kind, given, settings.execution_env, cwd=found.cwd)
    fetch, stamp = _fetch(argv, found, manifests, tools, files, job_env)
    modules = golang.module_cache(env) if found.go else None
    return Project(
        roots=found.roots,
        cwd=found.cwd,
        name=settings.name or os.path.basename(main.path),
        id=settings.id or main.key,
        manifests=manifests,
        tools=tools,
        extra_files=tuple(files),
        env=job_env,
        fetch=fetch,
        fetch_stamp=stamp,
        cargo_home=cargo_home(env) if tool in ("cargo", "make", "ninja") else None,
        cache_files=cargo_cache_files(main, env, lock) if lock and _may_offer(cargo_home, env, confined) else (),
        module_cache=modules,
        module_files=(
            golang.module_files(found.go, modules)
            if found.go and modules and _may_offer(golang.module_cache, env, confined)
            else ()
        ),
    )


_Place = Callable[[Mapping[str, str]], AbsPath]


def _is_own(place: _Place, env: Mapping[str, str]) -> bool:
    """True if *place* is the same directory for the caller and for this process."""
    return os.path.realpath(place(env)) == os.path.realpath(place(os.environ))


def _may_offer(cache: _Place, env: Mapping[str, str], confined: bool) -> bool:
    """May the crates or modules in the caller's *cache* go into the one that all jobs of a worker share?

    They are taken there for what they are called, so a sandbox's own ones would be built into other projects.
    """
    return not confined or _is_own(cache, env)


def _check_places(kind: Kind, found: Discovery, env: Mapping[str, str]) -> None:
    """A caller in a sandbox may name any directory; its files are read for it only where it has shown that it may.

    Raises NotOffloadable ``path-not-proved``.
    """
    places: dict[str, _Place] = {}
    if "rust" in kind.tools or found.cargo:
        places |= {"CARGO_HOME": cargo_home, "RUSTUP_HOME": rustup_home}
    if found.go:
        places |= {"GOMODCACHE": golang.module_cache}
    for name, place in places.items():
        theirs = place(env)
        if not _is_own(place, env) and found.root_of(os.path.realpath(theirs)) is None:
            raise NotOffloadable(
                f"{name} is {theirs} in the caller's sandbox and {place(os.environ)} for rchd",
                code="path-not-proved",
                hint=f"leave {name} as it is outside the sandbox, or put it into the project",
            )


def _fetch(
    argv: Sequence[str],
    found: Discovery,
    manifests: Mapping[str, Manifest],
    tools: Sequence[ToolIdentity],
    files: Sequence[ExtraFile],
    env: Mapping[str, str],
) -> tuple[tuple[Argv, ...], str]:
    """The kind's fetch step and the digest of all that decides what it brings."""
    if found.cargo:
        lock = _lock(found)
        steps = fetch_step(argv, lock)
        if steps and found.cargo.config.steers:
            raise NotOffloadable(
                f"{found.cargo.config.steers} decides how crates are fetched, for a cache that other projects share",
                code="missing-input",
                hint="move it to the config.toml of CARGO_HOME",
            )
        return steps, fetch_stamp(steps, lock, found.roots, manifests, tools, files, env) if steps else ""
    if found.go:
        steps = golang.fetch_step(found.go, argv)
        return steps, golang.fetch_stamp(steps, found.roots, manifests, tools, env)
    return (), ""


def _lock(found: Discovery) -> AbsPath:
    assert found.cargo is not None
    return AbsPath(os.path.join(found.cargo.root, "Cargo.lock"))


def _manifest(
    root: Root,
    found: Discovery,
    kind: Kind,
    settings: ProjectSettings,
    state_dir: AbsPath,
    also: Collection[str],
    *,
    rehash: bool,
    confined: bool,
) -> Manifest:
    rules = ManifestRules.of(settings, required=found.required.get(root.key, ()))
    rules = dataclasses.replace(rules, force_include=(*rules.force_include, *found.installed))
    cache = stat_cache(state_dir, root.key)
    with uncollected(), cache.loading():
        listing = list_root(root.real, rules, ignored_inputs=kind.ignored_inputs, build_dirs=root.build_dirs, also=also)
    record = LinkRecord(state_dir, root.key, ignored_inputs=kind.ignored_inputs)
    outward = outward_links(root.real, list(listing.links), [root.real])
    record.save(outward)
    new = [path for path, real in outward.items() if found.root_of(real) is None]
    if new:
        raise NotOffloadable(
            f"{os.path.join(root.path, new[0])} leads to {outward[new[0]]}, new since the project was last looked at",
            code="path-not-proved",
            hint="run the command again",
        )
    overlay = git_overlay(root, settings.git, state_dir, listing.checkouts, confined=confined)
    manifest = manifest_of(root, listing, kind, rules, cache, rehash=rehash, overlay=overlay)
    cache.release()
    return manifest
