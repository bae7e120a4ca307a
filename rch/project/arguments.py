"""argv -> the places it names: where the tool works, what it reads, where it writes. No look at the disk.

This is about places only; whether a command may go out at all is the toolchains' decision.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rch.intercept.decision import Kind


class _Role(enum.Enum):
    DIRECTORY = "directory"  # the tool changes there, before it reads anything else
    BUILD = "build"  # a configured build directory
    MANIFEST = "manifest"
    INPUT = "input"
    OUTPUT = "output"
    TARGET = "target"
    CONFIG = "config"
    SKIP = "skip"  # takes a value that is no path


@dataclass(frozen=True)
class NamedPlaces:
    """Paths as they stand in argv, relative ones still relative.

    directories: ``-C`` in order; each is relative to the one before.
    build:       a configured build directory (``cmake --build``, ``ctest --test-dir``); relative to the last directory,
                 as is everything below.
    target_dir, config, toolchain: cargo's ``--target-dir``, ``--config`` and ``+toolchain``.
    variables:   ``NAME=value`` words of make.
    """

    directories: tuple[str, ...] = ()
    build: str = ""
    manifest: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    target_dir: str = ""
    config: tuple[str, ...] = ()
    toolchain: str = ""
    variables: tuple[tuple[str, str], ...] = ()


_D, _B, _M, _I, _O, _T, _C, _S = _Role

_CARGO: Mapping[str, _Role] = {
    "-C": _D, "--manifest-path": _M, "--target-dir": _T, "--out-dir": _O, "--artifact-dir": _O, "--config": _C,
    "--lockfile-path": _O, "-p": _S, "--package": _S, "-F": _S, "--features": _S, "-j": _S, "--jobs": _S,
    "--profile": _S, "--target": _S, "--bin": _S, "--example": _S, "--test": _S, "--bench": _S, "--exclude": _S,
    "-Z": _S, "--color": _S, "--message-format": _S,
}  # fmt: skip
_RUSTC: Mapping[str, _Role] = {
    "-o": _O, "--out-dir": _O, "-C": _S, "--codegen": _S, "--cfg": _S, "--check-cfg": _S, "-L": _S, "-l": _S,
    "--crate-type": _S, "--crate-name": _S, "--edition": _S, "--emit": _S, "--target": _S, "--extern": _S, "-Z": _S,
    "-A": _S, "-W": _S, "-D": _S, "-F": _S, "--cap-lints": _S, "--sysroot": _I,
}  # fmt: skip
_CC: Mapping[str, _Role] = {
    "-o": _O, "-MF": _O, "-I": _I, "-L": _I, "-isystem": _I, "-iquote": _I, "-idirafter": _I, "-include": _I,
    "-imacros": _I, "--sysroot": _I, "-isysroot": _I, "-D": _S, "-U": _S, "-l": _S, "-x": _S, "-MT": _S, "-MQ": _S,
    "-target": _S, "-arch": _S, "-Xlinker": _S, "-Xpreprocessor": _S, "-Xassembler": _S, "-Xclang": _S, "-T": _I,
    "-B": _I, "-u": _S, "-z": _S, "--param": _S, "-aux-info": _O, "-dumpbase": _S, "-dumpdir": _O,
}  # fmt: skip
_MAKE: Mapping[str, _Role] = {
    "-C": _D, "--directory": _D, "-f": _I, "--file": _I, "--makefile": _I, "-I": _I, "--include-dir": _I, "-o": _S,
    "--old-file": _S, "--assume-old": _S, "-W": _S, "--what-if": _S, "--new-file": _S, "--assume-new": _S, "-E": _S,
    "--eval": _S,
}  # fmt: skip
_CMAKE: Mapping[str, _Role] = {
    "--build": _B, "-t": _S, "--target": _S, "--config": _S, "-j": _S, "--parallel": _S, "--preset": _S,
    "--test-dir": _B, "-R": _S, "-E": _S, "-L": _S, "-C": _S, "--output-junit": _O, "-O": _O, "--output-log": _O,
}  # fmt: skip
_NINJA: Mapping[str, _Role] = {"-C": _D, "-f": _I, "-j": _S, "-k": _S, "-l": _S, "-d": _S, "-w": _S}
_MESON: Mapping[str, _Role] = {"-C": _D, "-j": _S, "--jobs": _S, "-l": _S, "--load-average": _S, "--ninja-args": _S}
_GO: Mapping[str, _Role] = {
    "-C": _D, "-o": _O, "-modfile": _I, "-overlay": _I, "-pkgdir": _O, "-coverprofile": _O, "-cpuprofile": _O,
    "-memprofile": _O, "-blockprofile": _O, "-mutexprofile": _O, "-trace": _O, "-outputdir": _O, "-pgo": _S, "-p": _S,
    "-tags": _S, "-ldflags": _S, "-gcflags": _S, "-asmflags": _S, "-run": _S, "-bench": _S, "-timeout": _S, "-mod": _S,
    "-count": _S, "-vet": _S, "-exec": _S, "-toolexec": _S, "-buildmode": _S, "-covermode": _S, "-coverpkg": _S,
}  # fmt: skip
_NODE: Mapping[str, _Role] = {
    "--prefix": _D, "--cwd": _D, "-C": _D, "--dir": _D, "-p": _I, "--project": _I, "--outDir": _O, "--outfile": _O,
    "--outdir": _O, "--declarationDir": _O, "--tsBuildInfoFile": _O,
}  # fmt: skip

_TABLES: Mapping[str, Mapping[str, _Role]] = {
    "cargo": _CARGO, "rustc": _RUSTC, "cc": _CC, "make": _MAKE, "cmake": _CMAKE, "ninja": _NINJA, "meson": _MESON,
    "go": _GO, "npm": _NODE, "pnpm": _NODE, "yarn": _NODE, "bun": _NODE, "tsc": _NODE, "ctest": _CMAKE,
}  # fmt: skip

_SOURCES = (
    ".c", ".cc", ".cpp", ".cxx", ".c++", ".cp", ".C", ".h", ".hh", ".hpp", ".hxx", ".m", ".mm", ".s", ".S", ".o", ".a",
    ".so", ".rs", ".i", ".ii", ".ld", ".lds", ".map", ".def",
)  # fmt: skip


def family(kind: Kind) -> str:
    """ "cargo" of "cargo.build": which tool's rules hold for places and environment."""
    return kind.name.split(".", 1)[0]


def named_places(argv: Sequence[str], kind: Kind) -> NamedPlaces:
    """Read *argv* (the tool first) as the tool of *kind* would, as far as paths go; unknown tools name nothing."""
    tool = family(kind)
    table = _TABLES.get(tool)
    if table is None or not argv:
        return NamedPlaces()
    found: dict[_Role, list[str]] = {role: [] for role in _Role}
    plain: list[str] = []
    words = list(argv[1:])
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--" and tool in ("cargo", "cmake"):
            break  # what follows is for the test binary or the native tool
        read = _option(word, table, go=tool == "go")
        if read is None:
            plain.append(word)
            continue
        role, value = read
        if value is None:
            if position >= len(words):
                break
            value = words[position]
            position += 1
        if value:
            found[role].append(value)
    return NamedPlaces(
        directories=tuple(found[_D]),
        build=found[_B][-1] if found[_B] else "",
        manifest=found[_M][-1] if found[_M] else "",
        inputs=(*found[_I], *_plain_inputs(plain, tool)),
        outputs=(*found[_O], *_emitted(argv, tool)),
        target_dir=found[_T][-1] if found[_T] else "",
        config=tuple(found[_C]),
        toolchain=words[0][1:] if tool in ("cargo", "rustc") and words and words[0].startswith("+") else "",
        variables=tuple(_variables(plain)) if tool == "make" else (),
    )


def _option(word: str, table: Mapping[str, _Role], *, go: bool) -> tuple[_Role, str | None] | None:
    """(role, value) of an option word; value None = the next word; None for anything that is no known option."""
    if not word.startswith("-") or word == "-":
        return None
    name, equals, value = word.partition("=")
    if go and name.startswith("--"):
        name = name[1:]  # go takes -name and --name alike
    if name in table:
        if equals:
            return table[name], value
        return table[name], None
    if not word.startswith("--"):
        for length in (2, 3):  # -Cdir, -Idir, -MFfile
            if word[:length] in table and (length > 2 or word[:3] not in table):
                return table[word[:length]], word[length:]
        if word.startswith(("-isystem", "-iquote", "-include")):
            name = next(n for n in ("-isystem", "-iquote", "-include") if word.startswith(n))
            return (table[name], word[len(name) :]) if name in table else None
    return None


def _plain_inputs(words: Sequence[str], tool: str) -> list[str]:
    if tool in ("cc", "rustc"):
        inputs = [word.removeprefix("@") for word in words]
        return [word for word in inputs if word.endswith(_SOURCES)]
    if tool == "go":
        return [word.removesuffix("/...") for word in words if word.startswith((".", "/"))]
    return []


def _emitted(argv: Sequence[str], tool: str) -> list[str]:
    """Files named by rustc's ``--emit kind=path``, and inside words such as ``-Wp,-MD,path`` and ``-Wl,-Map=path``."""
    found: list[str] = []
    if tool == "rustc":
        for before, word in zip(("", *argv), argv, strict=False):
            emit = word.removeprefix("--emit=") if word.startswith("--emit=") else (word if before == "--emit" else "")
            found += [part.split("=", 1)[1] for part in emit.split(",") if "=" in part]
    elif tool == "cc":
        for word in argv:
            if word.startswith(("-Wp,-MD,", "-Wp,-MMD,", "-Wl,-Map,", "-Wl,-o,")):
                found.append(word.rsplit(",", 1)[1])
            elif word.startswith(("-Wl,-Map=", "-fprofile-dir=", "-fdiagnostics-file=", "-ftest-coverage-dir=")):
                found.append(word.split("=", 1)[1])
    return [path for path in found if path and path != "-"]


def _variables(words: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name and not name.startswith("-"):
            found.append((name.rstrip(":+?!"), value))
    return found
