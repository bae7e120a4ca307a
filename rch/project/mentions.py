"""Places outside that a tree's own build files name: CMake's cache, meson's, Makefiles. Nothing is executed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

_READ_LIMIT = 4_000_000
_CMAKE_DIR = re.compile(rb"^(?:CMAKE_HOME_DIRECTORY:INTERNAL|[A-Za-z0-9_.+-]+_SOURCE_DIR:STATIC)=(.+)$", re.MULTILINE)
_MAKE_SRCDIR = re.compile(rb"^(?:abs_)?(?:top_)?srcdir\s*[:?]?=\s*(\S+)\s*$", re.MULTILINE)
_MAKE_INCLUDE = re.compile(rb"^[-s]?include[ \t]+([^\n#]+)", re.MULTILINE)
_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")


def configured_sources(build: str) -> tuple[str, ...]:
    """Source directories that the configured build directory *build* belongs to (absolute); () if it is none."""
    found = [os.fsdecode(match) for match in _CMAKE_DIR.findall(_read(os.path.join(build, "CMakeCache.txt")))]
    try:
        info = json.loads(_read(os.path.join(build, "meson-info", "meson-info.json")) or b"{}")
        source = info["directories"]["source"]
        if isinstance(source, str):
            found.append(source)
    except (ValueError, KeyError, TypeError):
        pass
    return tuple(dict.fromkeys(path for path in found if os.path.isabs(path)))


def makefile_places(directory: str, named: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Directories and files that the Makefile used in *directory* names in plain words: srcdir, ``include``.

    named: values of ``-f``; directories among them are left out. Words with ``$`` are left to make; what does not
    exist is left out, as ``-include`` does.
    """
    files = [path for name in named if os.path.isfile(path := os.path.join(directory, name))]
    if not files:
        files = [path for name in _MAKEFILES if os.path.isfile(path := os.path.join(directory, name))][:1]
    return tuple(dict.fromkeys(_makefile_places(files, directory)))


def _makefile_places(files: list[str], directory: str) -> Iterator[str]:
    seen: set[str] = set()
    while files and len(seen) < 200:
        path = os.path.normpath(files.pop())
        if path in seen:
            continue
        seen.add(path)
        text = _read(path)
        for match in _MAKE_SRCDIR.findall(text):
            place = os.path.normpath(os.path.join(directory, os.fsdecode(match)))
            if b"$" not in match and os.path.isdir(place):
                yield place
        for words in _MAKE_INCLUDE.findall(text):
            for word in words.split():
                place = os.path.normpath(os.path.join(directory, os.fsdecode(word)))
                if b"$" not in word and os.path.isfile(place):
                    files.append(place)
                    yield place


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(_READ_LIMIT)
    except OSError:
        return b""
