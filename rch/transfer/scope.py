"""Which paths a transfer may touch, and how: the tree, the build directories, and what never comes back."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Mapping, Sequence

from rch.paths import is_below
from rch.project.model import Manifest, Root
from rch.transfer.model import BuildDir
from rch.worker.protocol import Entry

PRODUCT = re.compile(r"(\.(a|lib|dll|dylib|rlib|so|wasm|exe|jar|whl)|\.so(\.[0-9]+)+)$")
"""Final products by name, for build directories that are not cargo's; executables count whatever their name."""

CARGO_MARKS = frozenset({".fingerprint", ".cargo-lock", ".cargo-build-lock", ".cargo-artifact-lock"})
"""What cargo puts into a profile's directory and into no other."""


class Classes:
    """Tells tree paths from build paths of one root.

    A path below a build directory that the manifest holds (a tracked file in ``build/``) is a source like any other.
    """

    def __init__(self, root: Root, manifest: Manifest) -> None:
        self._dirs = tuple(d + "/" for d in root.build_dirs)
        self._whole = frozenset(root.build_dirs)
        self._sent = manifest.entries

    def is_build(self, path: str) -> bool:
        """True for a path of a build directory: pushed by nobody, returned by policy."""
        return (path in self._whole or path.startswith(self._dirs)) and path not in self._sent

    def is_protected(self, path: str) -> bool:
        """True for repositories: a job's ``.git`` is made up, so nothing of it may land in the real one.

        In a build directory a clone that the job made (CMake's FetchContent) is a product like any other.
        """
        if ".g" not in path and ".G" not in path:
            return False
        return any(part.lower() == ".git" for part in path.split("/")) and not self.is_build(path)


def return_scope(
    entries: Mapping[str, Entry],
    root: Root,
    classes: Classes,
    policy: BuildDir,
    extra_patterns: Sequence[str] = (),
) -> Callable[[str], bool]:
    """Answer the test "does this build path return?" for the worker's tree *entries* (design.md 6.4, coverage A-22).

    FULL: all. NONE: nothing but *extra_patterns*. OUTPUTS: the final products, which for cargo are the uplifted
    files (``target/<profile>/*`` and ``examples/*`` there), else executables and libraries; links to them too.
    """
    if policy is BuildDir.FULL:
        return lambda _path: True
    patterns = [re.compile(fnmatch.translate(p)) for p in extra_patterns]
    wanted: set[str] = set()
    profiles = _cargo_profiles(entries, classes) if policy is BuildDir.OUTPUTS else frozenset()
    if policy is BuildDir.OUTPUTS:
        roots_of_cargo = {d for d in root.build_dirs if any(is_below(p, d) for p in profiles)}
        for path, entry in entries.items():
            if entry.type == "d" or not classes.is_build(path):
                continue
            head, _, name = path.rpartition("/")
            if any(is_below(path, d) for d in roots_of_cargo):
                if not name.startswith(".") and (head in profiles or head.removesuffix("/examples") in profiles):
                    wanted.add(path)
            elif (entry.type == "f" and entry.mode & 0o111) or PRODUCT.search(name):
                wanted.add(path)
    if patterns:
        wanted |= {p for p in entries if classes.is_build(p) and any(m.match(p) for m in patterns)}
    above: set[str] = set()
    for path in wanted:
        head = path.rpartition("/")[0]
        while head and head not in above:
            above.add(head)
            head = head.rpartition("/")[0]

    def returns(path: str) -> bool:
        if path in wanted or path in above:
            return True
        return path not in entries and _was_product(path, policy, profiles, patterns)

    return returns


def _was_product(path: str, policy: BuildDir, profiles: Collection[str], patterns: Sequence[re.Pattern[str]]) -> bool:
    """As the scope, for a path that is gone on the worker: only its name is left to judge by."""
    if any(m.match(path) for m in patterns):
        return True
    if policy is not BuildDir.OUTPUTS:
        return False
    head, _, name = path.rpartition("/")
    if profiles:
        return not name.startswith(".") and (head in profiles or head.removesuffix("/examples") in profiles)
    return PRODUCT.search(name) is not None


def _cargo_profiles(entries: Mapping[str, Entry], classes: Classes) -> frozenset[str]:
    """Directories into which cargo uplifts: those that hold its lock or its fingerprints."""
    found = set()
    for path in entries:
        head, _, name = path.rpartition("/")
        if head and name in CARGO_MARKS and classes.is_build(path):
            found.add(head)
    return frozenset(found)
