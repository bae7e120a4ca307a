"""The ``.git`` that a job sees: made here, without blobs, credentials or hooks (``transfer.git``).

Under ``head`` it holds the history of HEAD, the names on it, HEAD's trees and a portable index: enough for
``git rev-parse HEAD``, ``git describe --tags --dirty`` and ``git log -1`` to answer in the job as they do here
(lessons SP-06), for a clone, a linked worktree, a submodule, and a root that is only a part of a repository.
Files are made below ``<state>/roots/<key>/git/`` and made again only when HEAD, tags, index or configuration changed;
equal content keeps its file, so nothing is sent twice. The repository here is only read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rch.errors import NotOffloadable
from rch.paths import AbsPath, RelPath, is_below
from rch.project._git import Checkout, GitFailed, checkout_above, checkout_at, run_git, strays_of
from rch.project._gitindex import OddIndex, portable_index
from rch.project.model import Root
from rch.worker.protocol import Entry, hash_bytes, hash_stream, path_bytes

_FORMAT = 1
"""Raised when what is made changes, so that what older versions left is made again."""
_MAX_COMMITS = 20_000
"""Older history is cut off as in a shallow clone; 20,000 commits are some 5 MB."""
_MAX_PACKS = 16
_RACY_NS = 2_000_000_000

_CARRIED = re.compile(
    r"core\.(?:filemode|autocrlf|eol|safecrlf|symlinks|ignorecase|precomposeunicode|quotepath|commentchar)"
    r"|log\.[a-z]+|format\.pretty|pretty\..+|i18n\.[a-z]+|diff\.(?:renames|algorithm|noprefix)|blame\.[a-z]+"
)
"""Settings that change what the answers look like and cannot hold a credential or name a program."""
_CARRIED_FULL = re.compile(
    r"remote\..+\.(?:url|fetch|pushurl)|branch\..+\.(?:remote|merge|rebase)|user\.(?:name|email)|submodule\..+\.url"
)


class Overlay(NamedTuple):
    """entries: ``.git/…`` path -> Entry; sources: the same paths (files) -> where their content lies here."""

    entries: dict[str, Entry]
    sources: dict[str, AbsPath]


def git_overlay(
    root: Root, policy: str, state_dir: AbsPath, checkouts: Sequence[RelPath] = (), *, confined: bool = False
) -> Overlay:
    """The made-up ``.git`` directories of *root*.

    policy:    "head", "none" (empty answer) or "full" (the real one without credentials, hooks and logs).
    checkouts: directories below the root that are checkouts of their own, from the listing.
    confined:  refuse (``path-not-proved``) a repository whose data lie where the caller may not be able to read.
    Outside a repository the answer is empty: git says there what it says here. Raises NotOffloadable
    ``missing-input`` for a repository that git cannot read.
    """
    overlay = Overlay({}, {})
    if policy == "none":
        return overlay
    around = checkout_above(root.real)
    home = os.path.realpath(os.path.expanduser("~"))
    if around is not None and around.top != root.real and is_below(home, around.top):
        around = None  # somebody's dot files: their names are no worker's business
    units: list[tuple[str, Checkout | None]] = [("", around)]
    units += [(path, checkout_at(os.path.join(root.real, path))) for path in checkouts]
    for path, checkout in units:
        if checkout is None:
            continue
        if confined and (strays := strays_of(checkout)):
            raise NotOffloadable(
                f"{checkout.top} has its repository in {strays}, which a sandbox may keep from the caller",
                code="path-not-proved",
                hint='transfer.git = "none"',
            )
        store = os.path.join(state_dir, "roots", root.key, "git", hash_bytes(path_bytes(path))[:16])
        top = os.path.join(root.real, path) if path else root.real
        try:
            unit = _Unit(checkout, top, store, full=policy == "full")
            made = unit.fresh()
            if made is None:
                made = unit.make()
        except (GitFailed, OSError) as error:
            raise NotOffloadable(
                f"the repository of {top} cannot be read: {error}", code="missing-input", hint='transfer.git = "none"'
            ) from error
        prefix = f"{path}/.git" if path else ".git"
        overlay.entries[prefix] = Entry(prefix, "d", 0o755, 0, 0, "")
        for entry, source in made:
            name = f"{prefix}/{entry.path}"
            overlay.entries[name] = entry._replace(path=name)
            if entry.type == "f":
                overlay.sources[name] = AbsPath(source)
    return overlay


_Made = list[tuple[Entry, str]]
"""Entries relative to the ``.git``, each with the file that holds its content ("" for directories)."""


class _Unit:
    """One made-up ``.git``: that of *checkout*, seen from *top*, which is its top or a directory below."""

    def __init__(self, checkout: Checkout, top: str, store: str, *, full: bool) -> None:
        self._checkout = checkout
        self._store = store
        self._files = os.path.join(store, "files")
        self._full = full
        self._inside = "" if checkout.top == top else os.path.relpath(top, checkout.top)
        self._signature, self._sure = self._sign()

    def fresh(self) -> _Made | None:
        """What was made last time, if nothing it depends on has changed."""
        try:
            with open(os.path.join(self._store, "made.json"), encoding="ascii") as stream:
                kept = json.load(stream)
            if kept["signature"] != self._signature:
                return None
            made = [(Entry(*row[:6]), row[6]) for row in kept["made"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return made if all(not source or os.path.exists(source) for _, source in made) else None

    def make(self) -> _Made:
        os.makedirs(self._files, mode=0o700, exist_ok=True)
        made = self._make_full() if self._full else self._make_head()
        if self._sure:
            rows = [[*entry[:6], source] for entry, source in made]
            _put(
                os.path.join(self._store, "made.json"),
                json.dumps({"signature": self._signature, "made": rows}).encode(),
            )
        return made

    # What it depends on

    def _sign(self) -> tuple[list[object], bool]:
        """Stat data of everything the answer depends on; not sure if some of it is too young to tell from the next."""
        common, own = self._checkout.common_dir, self._checkout.git_dir
        home = os.environ.get("HOME", "/")
        config_home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        head = _read(os.path.join(own, "HEAD"))
        paths = [os.path.join(own, name) for name in ("HEAD", "index", "config.worktree")]
        paths += [
            os.path.join(common, name)
            for name in (
                "packed-refs",
                "config",
                "shallow",
                "info/exclude",
                "reftable/tables.list",
                "objects/info/alternates",
            )
        ]
        paths += [os.path.join(home, ".gitconfig")]
        paths += [os.path.join(config_home, "git", name) for name in ("config", "ignore")]
        if head.startswith(b"ref: "):
            paths.append(os.path.join(common, os.fsdecode(head[5:].strip())))
        trees = [("refs", True)] + ([("objects", False)] if self._full else [])
        for tree, files_too in trees:
            for directory, _, names in os.walk(os.path.join(common, tree)):
                paths.append(directory)
                paths += [os.path.join(directory, file) for file in sorted(names) if files_too]
        now, youngest = time.time_ns(), 0
        rows: list[object] = [_FORMAT, self._full, self._checkout.top, self._inside]
        for path in paths:
            try:
                status = os.stat(path)
            except OSError:
                rows.append([path, None])
                continue
            youngest = max(youngest, status.st_ctime_ns)
            rows.append([path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino])
        return json.loads(json.dumps(rows)), youngest < now - _RACY_NS

    # transfer.git = head

    def _make_head(self) -> _Made:
        head = self._git("rev-parse", "-q", "--verify", "HEAD", ok=(0, 1)).strip().decode("ascii")
        branch = self._git("symbolic-ref", "-q", "HEAD", ok=(0, 1)).strip()
        form = self._git("rev-parse", "--show-object-format").strip().decode("ascii")
        self._put("HEAD", b"ref: " + branch + b"\n" if branch else head.encode() + b"\n")
        refs: list[tuple[bytes, bytes, bytes]] = []
        cut: set[str] = set()
        if head:
            wanted, cut, refs = self._wanted(head)
            self._pack(wanted)
        lines = [b"# pack-refs with: peeled fully-peeled sorted \n"]
        for ref, oid, peeled in sorted(refs):
            lines.append(oid + b" " + ref + b"\n" + (b"^" + peeled + b"\n" if peeled else b""))
        self._put("packed-refs", b"".join(lines))
        self._put("config", self._config(head, form))
        self._put("info/exclude", self._excludes())
        self._put("shallow", "".join(f"{oid}\n" for oid in sorted(cut)).encode() if cut else None)
        self._index(form)
        for name in ("refs/heads", "refs/tags", "objects/info", "objects/pack", "info"):
            os.makedirs(os.path.join(self._files, name), exist_ok=True)
        return list(_described(self._files))

    def _wanted(self, head: str) -> tuple[set[str], set[str], list[tuple[bytes, bytes, bytes]]]:
        """(objects, commits that end a cut history, refs as name, object, tagged commit) of HEAD."""
        rows = self._git("rev-list", "--parents", f"--max-count={_MAX_COMMITS}", head).decode("ascii").split("\n")
        parents = {row.split(" ", 1)[0]: row.split(" ")[1:] for row in rows if row}
        cut = {oid for oid, above in parents.items() if any(p not in parents for p in above)}
        shallow = _read(os.path.join(self._checkout.common_dir, "shallow")).decode("ascii", "replace").split()
        cut |= {oid for oid in shallow if oid in parents}
        wanted = set(parents)
        wanted.add(self._git("rev-parse", f"{head}^{{tree}}").strip().decode("ascii"))
        for row in self._git("ls-tree", "-rdz", "--full-tree", head).split(b"\0"):
            if row[7:11] == b"tree":
                wanted.add(row[12:].split(b"\t", 1)[0].decode("ascii"))
        refs: list[tuple[bytes, bytes, bytes]] = []
        form = "%(objecttype) %(*objecttype) %(objectname) %(*objectname) %(refname)"
        named = self._git("for-each-ref", f"--format={form}", "refs/tags", "refs/heads", "refs/remotes")
        for line in named.split(b"\n"):
            if not line:
                continue
            kind, inner, oid, peeled, name = line.split(b" ", 4)
            commit = peeled if kind == b"tag" else oid
            if commit.decode("ascii") not in parents or (kind == b"tag" and inner != b"commit"):
                continue  # not on HEAD's history, so it names nothing in the job
            if kind == b"tag":
                wanted.add(oid.decode("ascii"))
            refs.append((name, oid, peeled if kind == b"tag" else b""))
        return wanted, cut, refs

    def _pack(self, wanted: set[str]) -> None:
        """Put what no pack holds yet into a further pack: after one commit, a few objects travel, not the history."""
        list_file = os.path.join(self._store, "objects")
        packs = os.path.join(self._files, "objects", "pack")
        os.makedirs(packs, mode=0o755, exist_ok=True)
        held = set(_read(list_file).decode("ascii", "replace").split())
        count = sum(name.endswith(".pack") for name in os.listdir(packs))
        if count == 0 or count >= _MAX_PACKS or len(held) > 2 * len(wanted) + 1000:
            shutil.rmtree(packs)
            os.makedirs(packs, mode=0o755)
            held = set()
        missing = sorted(wanted - held)
        if not missing:
            return
        with tempfile.TemporaryDirectory(prefix=".pack-", dir=self._store) as directory:
            words = ("pack-objects", "-q", "--threads=1", "--delta-base-offset", "--missing=allow-any")
            # git's temporary files go where its objects are; those of the repository are only borrowed.
            lent = os.path.join(self._checkout.common_dir, "objects").replace("\\", "\\\\").replace('"', '\\"')
            env = {"GIT_OBJECT_DIRECTORY": directory, "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{lent}"'}
            given = "".join(f"{oid}\n" for oid in missing).encode()
            self._git(*words, os.path.join(directory, "pack"), given=given, env=env)
            for name in sorted(os.listdir(directory), key=lambda n: n.endswith(".idx")):  # the index comes last
                if name.endswith((".pack", ".idx")):
                    os.replace(os.path.join(directory, name), os.path.join(packs, name))
        _put(list_file, "".join(f"{oid}\n" for oid in sorted(held | wanted)).encode())

    def _index(self, form: str) -> None:
        source = os.path.join(self._checkout.git_dir, "index")
        try:
            written_ns = os.stat(source).st_mtime_ns
            with open(source, "rb") as stream:
                data = stream.read()
        except FileNotFoundError:
            self._put("index", None)
            return
        prefix = os.fsencode(self._inside) + b"/" if self._inside else b""
        written_s = written_ns // 1_000_000_000
        try:
            made = portable_index(data, written_s=written_s, prefix=prefix, hash_name=form)
        except (OddIndex, ValueError, IndexError):
            made = portable_index(self._plain_index(data), written_s=written_s, prefix=prefix, hash_name=form)
        path = self._put("index", made)
        if path and os.stat(path).st_mtime_ns != written_ns:
            os.utime(path, ns=(written_ns, written_ns))

    def _plain_index(self, data: bytes) -> bytes:
        """A copy of the index in version 2, neither split nor sparse; git does it, on the copy."""
        with tempfile.TemporaryDirectory(prefix=".index-", dir=self._store) as directory:
            copy = os.path.join(directory, "index")
            _put(copy, data)
            words = ("-c", "index.sparse=false", "update-index", "--no-split-index", "--index-version", "2")
            self._git(*words, env={"GIT_INDEX_FILE": copy})
            with open(copy, "rb") as stream:
                return stream.read()

    def _config(self, head: str, form: str, carried: re.Pattern[str] = _CARRIED) -> bytes:
        lines: dict[str, list[str]] = {}
        for row in self._git("config", "-z", "--list", ok=(0, 1)).split(b"\0"):
            key, _, value = row.decode("utf-8", "surrogateescape").partition("\n")
            if carried.fullmatch(key):
                lines.setdefault(key, []).append(_without_credentials(value))
        single = {
            "core.repositoryformatversion": "1" if form != "sha1" else "0",
            "core.bare": "false",
            "core.trustctime": "false",
            "core.checkstat": "minimal",
        }
        if form != "sha1":
            single["extensions.objectformat"] = form
        if head:
            # The automatic length depends on how many objects there are, and here are fewer.
            single["core.abbrev"] = str(len(self._git("rev-parse", "--short", head).strip()))
        if self._inside:
            single["core.worktree"] = "/".join([".."] * (1 + len(self._inside.split("/"))))
        settings = {key: values[-1:] if key.startswith("core.") else values for key, values in lines.items()}
        settings |= {key: [value] for key, value in single.items()}
        return _config_text(settings)

    def _excludes(self) -> bytes:
        """info/exclude with the user's own file before it: HOME is another one in the job."""
        asked = ("config", "--show-scope", "--type=path", "--get", "core.excludesFile")
        scope, _, named = self._git(*asked, ok=(0, 1)).rstrip(b"\n").partition(b"\t")
        home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.environ.get("HOME", "/"), ".config")
        user = os.fsdecode(named) if named else os.path.join(home, "git", "ignore")
        # What the repository itself names, or links to, is read only where it belongs to the repository: this process
        # can read more than whoever wrote it, and what it reads goes to a worker.
        own = (self._checkout.top, self._checkout.common_dir)
        parts = [
            _read(user) if scope in (b"", b"global", b"system") else _read_below(user, own),
            _read_below(os.path.join(self._checkout.common_dir, "info", "exclude"), own),
        ]
        return b"".join(part if part.endswith(b"\n") else part + b"\n" for part in parts if part)

    # transfer.git = full

    def _make_full(self) -> _Made:
        """The real repository: every file by reference, configuration and index made as above."""
        head = self._git("rev-parse", "-q", "--verify", "HEAD", ok=(0, 1)).strip().decode("ascii")
        form = self._git("rev-parse", "--show-object-format").strip().decode("ascii")
        carried = re.compile(f"{_CARRIED.pattern}|{_CARRIED_FULL.pattern}")
        self._put("config", self._config(head, form, carried))
        self._put("info/exclude", self._excludes())
        self._index(form)
        common, own = self._checkout.common_dir, self._checkout.git_dir
        made = {entry.path: (entry, source) for entry, source in _described(common, _left_behind)}
        if own != common:
            made.update((e.path, (e, s)) for e, s in _described(own, lambda path: path not in ("HEAD", "ORIG_HEAD")))
        for extra in self._alternates(os.path.join(common, "objects")):
            for entry, source in _described(extra, lambda path: path.startswith("info/")):
                path = f"objects/{entry.path}"
                made.setdefault(path, (entry._replace(path=path), source))
        made.update(
            (entry.path, (entry, source)) for entry, source in _described(self._files) if entry.path != "objects/pack"
        )
        return [made[path] for path in sorted(made)]

    def _alternates(self, objects: str, depth: int = 0) -> Iterator[str]:
        for line in _read(os.path.join(objects, "info", "alternates")).splitlines():
            path = os.path.normpath(os.path.join(objects, os.fsdecode(line)))
            if line and not line.startswith(b"#") and depth < 5 and os.path.isdir(path):  # git's own limit
                yield path
                yield from self._alternates(path, depth + 1)

    def _git(
        self, *words: str, ok: Sequence[int] = (0,), given: bytes | None = None, env: Mapping[str, str] | None = None
    ) -> bytes:
        return run_git(self._checkout, words, ok=ok, given=given, env=env)

    def _put(self, name: str, content: bytes | None) -> str:
        """Write (or, for None, remove) one generated file; an equal one keeps its times."""
        path = os.path.join(self._files, name)
        if content is None:
            if os.path.exists(path):
                os.unlink(path)
            return ""
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        _put(path, content)
        return path


def _left_behind(path: str) -> bool:
    """What of a real ``.git`` never travels: programs, logs and what may name a URL with a password."""
    first = path.split("/", 1)[0]
    if first in (
        "hooks",
        "logs",
        "worktrees",
        "modules",
        "lfs",
        "fsmonitor--daemon",
        "index",
        "config",
        "config.worktree",
    ):
        return True
    return (
        path in ("FETCH_HEAD", "objects/info/alternates", "info/exclude", "gitk.cache")
        or path.endswith((".lock", "~"))
        or first.startswith(("sharedindex.", "credential"))
    )


def _described(top: str, leave: object = None) -> Iterator[tuple[Entry, str]]:
    """Entries of everything below *top*, directories without times, each file with its source."""
    for directory, directories, names in os.walk(top):
        inside = os.path.relpath(directory, top)
        prefix = "" if inside == "." else inside + "/"
        if callable(leave):
            directories[:] = [name for name in directories if not leave(prefix + name)]
        directories.sort()
        for name in directories:
            yield Entry(prefix + name, "d", 0o755, 0, 0, ""), ""
        for name in sorted(names):
            path = os.path.join(directory, name)
            if (callable(leave) and leave(prefix + name)) or os.path.islink(path):
                continue
            with open(path, "rb") as stream:
                content = hash_stream(stream)
                status = os.fstat(stream.fileno())
            yield Entry(prefix + name, "f", 0o644, status.st_size, status.st_mtime_ns, content), path


def _config_text(settings: Mapping[str, Iterable[str]]) -> bytes:
    out: list[str] = []
    for key, values in sorted(settings.items()):
        section, _, rest = key.partition(".")
        sub, _, name = rest.rpartition(".")
        quoted = sub.replace("\\", "\\\\").replace('"', '\\"')
        out.append(f'[{section} "{quoted}"]\n' if sub else f"[{section}]\n")
        for value in values:
            text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
            out.append(f'\t{name} = "{text}"\n')
    return path_bytes("".join(out))


def _without_credentials(value: str) -> str:
    """*value* without user and password of a URL (lessons SE-02)."""
    return re.sub(r"^([a-z][a-z0-9+.-]*://)[^/@]*@", r"\1", value, flags=re.IGNORECASE)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def _read_below(path: str, places: Sequence[str]) -> bytes:
    """As :func:`_read`; nothing of a file that, links resolved, lies in none of *places*."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with open(fd, "rb") as stream:
        real = os.readlink(f"/proc/self/fd/{fd}")
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        return stream.read() if any(is_below(real, os.path.realpath(place)) for place in places) else b""


def _put(path: str, content: bytes) -> None:
    try:
        with open(path, "rb") as stream:
            if stream.read() == content:
                return
    except OSError:
        pass
    temporary = f"{path}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as stream:
        stream.write(content)
    os.replace(temporary, path)
