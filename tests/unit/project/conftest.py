"""Real trees, real git, a home of its own for every test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from rch.intercept.decision import Kind
from rch.paths import AbsPath
from rch.project import Manifest, ManifestRules, Root, root_key, stat_cache, take_manifest
from rch.toolchains import KINDS

CARGO = KINDS["cargo.build"]


class Tree:
    """A directory under test, with what is needed to look at it as rch does."""

    def __init__(self, path: Path, state: Path) -> None:
        self.path = path
        self.state = AbsPath(str(state))
        path.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, content: str | bytes = "x\n") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def git(self, *words: str, cwd: Path | None = None, given: bytes | None = None) -> str:
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *words],
            cwd=cwd or self.path,
            capture_output=True,
            input=given,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def commit(self, message: str = "work") -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)

    @property
    def real(self) -> AbsPath:
        return AbsPath(os.path.realpath(self.path))

    def root(self, build_dirs: Iterable[str] = ()) -> Root:
        return Root(AbsPath(str(self.path)), self.real, root_key("client", 0, self.real), tuple(build_dirs))

    def manifest(self, kind: Kind = CARGO, *, build_dirs: Iterable[str] = (), **rules: object) -> Manifest:
        passed = {key: rules.pop(key) for key in ("rehash", "also", "overlay") if key in rules}
        root = self.root(build_dirs)
        return take_manifest(root, kind, ManifestRules(**rules), stat_cache(self.state, root.key), **passed)

    def files(self, kind: Kind = CARGO, **more: object) -> set[str]:
        return {path for path, entry in self.manifest(kind, **more).entries.items() if entry.type != "d"}

    def age(self, seconds: int = 10) -> None:
        """Set the times of all files back; ctime stays now, as it would."""
        for directory, _, names in os.walk(self.path):
            for name in names:
                status = os.lstat(os.path.join(directory, name))
                then = status.st_mtime_ns - seconds * 10**9
                os.utime(os.path.join(directory, name), ns=(then, then), follow_symlinks=False)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Somebody\n\temail = somebody@example.org\n[init]\n\tdefaultBranch = main\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    return home


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def tree(tmp_path: Path, state: Path) -> Tree:
    return Tree(tmp_path / "work" / "proj", state)


@pytest.fixture
def repo(tree: Tree) -> Tree:
    tree.git("init", "-q")
    return tree


@pytest.fixture
def new_tree(state: Path) -> Callable[[Path], Tree]:
    """A further tree at a path, with the same state directory."""
    return lambda path: Tree(path, state)
