"""argv, cwd -> the directories that a job has to see, without starting a process.

Discovery works on real paths, because tools do: they ask the kernel where they are. What the caller typed comes back
in as the path of the root, or as an alias of it (lessons PM-02).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rch.errors import NotOffloadable
from rch.intercept.decision import Kind
from rch.paths import AbsPath, RelPath, is_below
from rch.project._git import checkout_above
from rch.project.arguments import NamedPlaces, family, named_places
from rch.project.cargo import CargoLayout, cargo_layout, find_manifest
from rch.project.extra import extra_files
from rch.project.golang import GoLayout, build_cache, build_dirs, go_layout
from rch.project.links import LinkRecord, directories_behind, outward_links
from rch.project.listing import list_root
from rch.project.mentions import configured_sources, makefile_places
from rch.project.model import ExtraFile, Root
from rch.project.places import absolute, check_bindable, is_shared, is_system, minimal, typed_form
from rch.project.settings import ManifestRules, ProjectSettings

_MARKERS = (
    "Makefile", "makefile", "GNUmakefile", "CMakeLists.txt", "meson.build", "go.mod", "build.ninja", "package.json",
)  # fmt: skip
_MAX_ROOTS = 16
_NODE = ("npm", "pnpm", "yarn", "bun", "tsc")
_PATH_VARIABLES = ("O", "DESTDIR", "BUILDDIR", "BUILD_DIR", "OUT", "OUTDIR", "OUT_DIR", "OBJDIR", "builddir", "prefix")


@dataclass(frozen=True)
class Discovery:
    """What :func:`discover_roots` found.

    roots:       minimal, the one that holds the work first.
    cwd:         the directory in which the job starts; below one of the roots, or a directory every job has.
    extra_files: configuration and toolchain files outside the roots that the tool will read.
    required:    per root key: paths below it that belong to the manifest even if git ignores them.
    cargo:       layout of the cargo workspace, for kinds of cargo. go: modules, for kinds of go.
    installed:   gitignore patterns of dependencies that lie in the tree, ignored, and are inputs (``node_modules``).
    directory:   where the tool works (cwd, or what ``-C`` says), real.
    """

    roots: tuple[Root, ...]
    cwd: AbsPath
    directory: str
    extra_files: tuple[ExtraFile, ...] = ()
    required: Mapping[str, tuple[RelPath, ...]] = field(default_factory=dict)
    cargo: CargoLayout | None = None
    go: GoLayout | None = None
    installed: tuple[str, ...] = ()

    def root_of(self, real: str) -> Root | None:
        """The root that the real path *real* lies in."""
        return next((root for root in self.roots if is_below(real, root.real)), None)


def root_key(client_id: str, uid: int, real: str) -> str:
    """Name of a tree on every worker: BLAKE2b-128 of client, user and real path (lessons SP-09)."""
    text = f"{client_id}\0{uid}\0{real}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def discover_roots(
    argv: Sequence[str],
    kind: Kind,
    cwd: AbsPath,
    env: Mapping[str, str],
    settings: ProjectSettings,
    *,
    state_dir: AbsPath | None = None,
    client_id: str = "",
    uid: int | None = None,
) -> Discovery:
    """The roots of one command.

    argv: the build's own words, the tool first. cwd: as the caller typed it. env: the caller's.
    state_dir: where earlier walks left what links lead to; without it, and for a root never seen, the tree is walked.
    Raises NotOffloadable: ``path-not-bindable`` (before anything else is looked at), ``output-outside-roots``,
    ``no-project``, ``missing-input`` and the ``preflight-…`` codes for what the tool here reports better.
    """
    real_cwd = os.path.realpath(cwd)
    check_bindable(cwd, real_cwd)
    search = _Search(argv, kind, real_cwd, env)
    search.run()
    user = os.getuid() if uid is None else uid
    while True:
        found = search.answer(cwd, client_id, user)
        if not search.take_links(found, settings, state_dir):
            return found


class _Search:
    def __init__(self, argv: Sequence[str], kind: Kind, cwd: str, env: Mapping[str, str]) -> None:
        self._kind = kind
        self._tool = family(kind)
        self._cwd = cwd
        self._env = env
        self._home = os.path.realpath(env.get("HOME") or os.path.expanduser("~"))
        self._named: NamedPlaces = named_places(argv, kind)
        self._directory = cwd
        self._roots: list[str] = []
        self._cargo: CargoLayout | None = None
        self._go: GoLayout | None = None
        self._build_cache = ""
        self._installed = ("node_modules/",) if self._tool in _NODE else ()

    def run(self) -> None:
        for step in self._named.directories:
            self._directory = os.path.realpath(absolute(step, self._directory))
        build = self._named.build
        work = os.path.realpath(absolute(build, self._directory)) if build else self._directory
        if self._tool == "cargo":
            self._take_cargo()
        else:
            self._add(self._project_of(work))
            if self._tool in ("make", "cmake", "ninja", "meson"):
                self._take_configured(work)
            if self._tool == "go":
                self._take_go()
        if not is_shared(self._cwd, self._home):
            self._need(self._cwd)
        for path in self._named.inputs:
            self._take_input(absolute(path, self._directory))
        self._roots = minimal(self._roots)
        self._check_outputs()

    def answer(self, typed_cwd: str, client_id: str, uid: int) -> Discovery:
        if len(self._roots) > _MAX_ROOTS:
            raise NotOffloadable(
                f"the command needs {len(self._roots)} separate directories, at most {_MAX_ROOTS} are sent",
                code="missing-input",
                hint="put an empty directory .rch into their common parent",
            )
        self._roots.sort(key=lambda real: real == self._build_cache)  # the work first
        physical = len([real for real in self._roots if real != self._build_cache]) > 1
        roots = []
        cwd = typed_cwd
        for real in self._roots:
            typed = typed_form(real, typed_cwd) if is_below(self._cwd, real) else None
            here = is_below(self._cwd, real)
            path, alias = real, ""
            if typed is not None and typed != real:
                path, alias = (real, typed) if physical else (typed, real)
            if here and (typed is None or (physical and typed != real)):
                cwd = self._cwd
            check_bindable(path, real)
            key = root_key(client_id, uid, self._named_by(real))
            roots.append(
                Root(AbsPath(path), AbsPath(real), key, self._build_dirs(real), (AbsPath(alias),) if alias else ())
            )
        discovery = Discovery(
            tuple(roots), AbsPath(cwd), self._directory, cargo=self._cargo, go=self._go, installed=self._installed
        )
        return replace(
            discovery, extra_files=self._extra_files(discovery), required={r.key: self._required(r) for r in roots}
        )

    def take_links(self, found: Discovery, settings: ProjectSettings, state_dir: AbsPath | None) -> bool:
        """Add what links of the roots lead to; True if that made the answer another one."""
        ignored_inputs = self._kind.ignored_inputs
        before = list(self._roots)
        for root in found.roots:
            record = LinkRecord(state_dir, root.key, ignored_inputs=ignored_inputs) if state_dir else None
            links = record.load() if record else None
            if links is None:
                rules = ManifestRules.of(settings, required=found.required[root.key])
                listing = list_root(root.real, rules, ignored_inputs=ignored_inputs, build_dirs=root.build_dirs)
                links = outward_links(root.real, list(listing.links), [root.real])
                if record:
                    record.save(links)
            missing = {
                path: real for path, real in links.items() if os.path.realpath(os.path.join(root.real, path)) == real
            }
            missing = {path: real for path, real in missing.items() if found.root_of(real) is None}
            for directory in directories_behind(root.real, missing, self._home):
                self._add(directory)
        return self._roots != before

    # Which directories

    def _project_of(self, directory: str) -> str:
        """The root for work in *directory*: ``.rch/``, git, the nearest build file; else the directory itself."""
        found = self._marked(directory)
        if found is None:
            checkout = checkout_above(directory)
            if checkout is not None and not is_shared(checkout.top, self._home):
                found = checkout.top
        if found is None:
            found = self._topmost_marker(directory) or directory
        if is_shared(found, self._home):
            raise NotOffloadable(
                f"{found} is no project: it holds no build file and is not in a git repository",
                code="no-project",
                hint=f"mark the project's directory: mkdir {os.path.join(directory, '.rch')}",
            )
        return found

    def _marked(self, directory: str) -> str | None:
        """The nearest directory with ``.rch/``; home's is the cache of a worker or a stray."""
        while not is_shared(directory, self._home):
            if os.path.isdir(os.path.join(directory, ".rch")):
                return directory
            directory = os.path.dirname(directory)
        return None

    def _topmost_marker(self, directory: str) -> str | None:
        """The highest directory of the unbroken chain of build files that begins nearest to *directory*."""
        found = None
        while not is_shared(directory, self._home):
            if any(os.path.isfile(os.path.join(directory, name)) for name in _MARKERS):
                found = directory
            elif found is not None:
                break
            directory = os.path.dirname(directory)
        return found

    def _take_cargo(self) -> None:
        named = self._named
        if named.manifest:
            manifest = os.path.realpath(absolute(named.manifest, self._directory))
            if os.path.basename(manifest) != "Cargo.toml" or not os.path.isfile(manifest):
                raise NotOffloadable(
                    f"{manifest} is no Cargo.toml", code="preflight-missing-file", hint="run the command here"
                )
        else:
            manifest = find_manifest(self._directory) or ""
            if not manifest:
                raise NotOffloadable(
                    f"no Cargo.toml in {self._directory} or above",
                    code="preflight-missing-file",
                    hint="run the command here",
                )
        check_bindable(manifest)
        layout = self._cargo = cargo_layout(
            manifest, self._directory, self._env, target_dir=named.target_dir, config_words=named.config
        )
        root = self._marked(layout.root) or layout.root
        if is_shared(root, self._home):
            raise NotOffloadable(
                f"the workspace is {root}, which holds more than a project", code="no-project", hint="move it below"
            )
        self._add(root)
        for path in layout.outside:
            self._need(path)

    def _take_configured(self, work: str) -> None:
        for source in configured_sources(work):
            self._need(os.path.realpath(source))
        if self._tool != "make":
            return
        for path in makefile_places(work, tuple(self._named.inputs)):
            self._need(os.path.realpath(path))

    def _take_go(self) -> None:
        """Modules that are used from elsewhere on this disk, and the build cache: what the go command calls built."""
        self._go = go_layout(self._directory, self._env)
        for path in self._go.outside:
            self._need(path)
        cache = os.path.realpath(build_cache(self._env))
        if os.path.isdir(cache) and not is_system(cache) and not is_shared(cache, self._home):
            self._build_cache = cache
            self._add(cache)

    def _named_by(self, real: str) -> str:
        """What the key of a root is made from. A build cache is kept once per project, so that two do not wait."""
        return f"{real}\0{self._roots[0]}" if real == self._build_cache else real

    def _take_input(self, path: str) -> None:
        real = os.path.realpath(path)
        if os.path.exists(real):
            self._need(real)

    def _need(self, real: str) -> None:
        """Make sure that *real*, which exists, is below a root or in what every job has."""
        if is_system(real) or any(is_below(real, root) for root in self._roots):
            return
        directory = real if os.path.isdir(real) else os.path.dirname(real)
        if not os.path.isdir(directory):
            return  # the tool will say so, there as here
        if is_shared(directory, self._home):
            raise NotOffloadable(
                f"{real} is read by the command and lies in {directory}, which is not sent as a whole",
                code="missing-input",
                hint="move it into a directory of its own",
            )
        self._add(directory)

    def _add(self, root: str) -> None:
        check_bindable(root)
        self._roots = minimal([*self._roots, root])

    # Outputs

    def _check_outputs(self) -> None:
        for path in self._named.outputs:
            self._check_output(absolute(path, self._directory))
        for name, value in self._named.variables:
            if value.startswith(("/", "..")) and (name in _PATH_VARIABLES or not os.path.exists(value)):
                self._check_output(absolute(value, self._directory))
        for path in self._cargo.target_dirs if self._cargo else ():
            self._check_output(path)

    def _check_output(self, path: str) -> None:
        if path in ("/dev/null", "/dev/stdout", "/dev/stderr"):
            return
        real = os.path.realpath(path)
        if not any(is_below(real, root) for root in self._roots):
            raise NotOffloadable(
                f"the command writes to {path}, outside {', '.join(self._roots)}, from where nothing returns",
                code="output-outside-roots",
                hint="name an output inside the project",
            )

    # What goes with them

    def _build_dirs(self, root: str) -> tuple[RelPath, ...]:
        targets = [os.path.realpath(path) for path in (self._cargo.target_dirs if self._cargo else ())]
        inside = [os.path.relpath(path, root) for path in targets if is_below(path, root) and path != root]
        inside += build_dirs(self._build_cache, root)
        return tuple(RelPath(path) for path in minimal(inside))

    def _required(self, root: Root) -> tuple[RelPath, ...]:
        """Inputs of cargo that projects like to ignore: lock file, configuration, toolchain file, manifests."""
        if self._cargo is None:
            return ()
        paths: list[str] = [*self._cargo.manifests, *(os.path.realpath(path) for path in self._cargo.config.files)]
        paths.append(os.path.join(self._cargo.root, "Cargo.lock"))
        paths += [
            os.path.join(directory, name)
            for directory in _upwards(self._directory)
            for name in ("rust-toolchain", "rust-toolchain.toml")
        ]
        crates = [os.path.dirname(path) for path in self._cargo.manifests]
        paths += [os.path.join(path, "") for path in crates if is_below(path, root.real) and path != root.real]
        inside = (path[len(root.real) :].lstrip("/") for path in paths if is_below(path, root.real))
        return tuple(RelPath(path) for path in dict.fromkeys(inside))

    def _extra_files(self, discovery: Discovery) -> tuple[ExtraFile, ...]:
        if self._tool not in ("cargo", "rustc"):
            return ()
        names = ["rust-toolchain", "rust-toolchain.toml"]
        paths = [os.path.join(directory, name) for directory in _upwards(self._directory) for name in names]
        if self._cargo is not None:
            paths += self._cargo.config.files
            for path in self._cargo.config.named:
                if discovery.root_of(os.path.realpath(path)) is None:
                    raise NotOffloadable(
                        f"{path} is named by a configuration of the project and lies outside it",
                        code="missing-input",
                        hint="move it into the project",
                    )
        outside = [path for path in paths if discovery.root_of(os.path.realpath(path)) is None]
        return extra_files(dict.fromkeys(outside))


def _upwards(directory: str) -> Iterable[str]:
    while True:
        yield directory
        parent = os.path.dirname(directory)
        if parent == directory:
            return
        directory = parent
