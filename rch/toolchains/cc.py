"""gcc, g++, clang, clang++, cc and c++ on a source file. See cc.md."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import UNKNOWN, Options
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, first_outside, held_back, never, no_build

COMPILE = Kind("cc.compile", Products.FILES, repeatable=True, ignored_inputs=True, tools=("c",))
CHECK = Kind("cc.check", Products.OUTPUT, repeatable=True, ignored_inputs=True, tools=("c",))

_NAMES = frozenset({"gcc", "g++", "clang", "clang++", "cc", "c++"})
# gcc-12, clang++-15, x86_64-linux-gnu-gcc, aarch64-linux-gnu-g++-12, c99-gcc
_VERSIONED = re.compile(r"(?:[a-z0-9_]+-){0,4}(?:gcc|g\+\+|clang|clang\+\+|cc|c\+\+)(?:-[0-9]+(?:\.[0-9]+)*)?\Z")

SOURCES = (".c", ".h", ".cc", ".cpp", ".cxx", ".c++", ".cp", ".hpp", ".hh", ".hxx", ".C", ".H")

_OPTIONS = Options(
    flags="-c -S -w -s -pipe -pthread -static -static-pie -static-libgcc -static-libstdc++ -shared "
    "-shared-libgcc -pie -no-pie -rdynamic -nostdinc -nostdinc++ -nostdlib -nostdlib++ -nodefaultlibs -nostartfiles "
    "-nolibc -ansi -pedantic -pedantic-errors -p -pg -coverage --coverage -save-temps -time -undef -MD -MMD -MP -MG "
    "-Qunused-arguments -ObjC -ObjC++ -traditional -trigraphs -symbolic -r -remap -CC -C -P -H -Q",
    valued="-o -I -L -D -U -l -x -include -imacros -isystem -iquote -idirafter -iprefix -iwithprefix "
    "-iwithprefixbefore -isysroot -imultilib -MF -MT -MQ "
    "-MJ -Xlinker -Xpreprocessor -Xassembler -Xclang -T -u -z -arch "
    "-target -framework -B -A -aux-info -dumpbase -dumpbase-ext -dumpdir -Xarch_host -gcc-toolchain --param --sysroot",
    prefixes=(
        *(
            "-O",
            "-g",
            "-f",
            "-m",
            "-W",
            "-std=",
            "--std=",
            "-stdlib=",
            "-specs=",
            "--sysroot=",
            "--target=",
            "--param=",
        ),
        *("--gcc-toolchain=", "-save-temps=", "-isystem", "-iquote", "-idirafter", "-mtune", "-march", "-rtlib="),
        *("-unwindlib=", "-R"),
    ),
    stays={
        "--help": "asks for help",
        "--target-help": "asks for help",
        "-h": "asks for help",
        "--version": "asks for the version",
        "-v": "tells how it was built",
        "-###": "only prints the commands",
        "-dumpversion": "only tells",
        "-dumpfullversion": "only tells",
        "-dumpmachine": "only tells",
        "-dumpspecs": "only tells",
        "-E": "only preprocesses",
        "-M": "only lists dependencies",
        "-MM": "only lists dependencies",
        "-wrapper": "runs the compiler under another program",
    },
)


def claims(name: str) -> bool:
    return _VERSIONED.match(name) is not None


def judge(call: Call) -> Judgement:
    if any(word.startswith(("-print-", "--print-", "--help=", "-dM")) for word in call.words):
        return never("only tells")
    reading = _OPTIONS.read(call.words)
    stay = held_back(reading, _OPTIONS)
    if stay is not None:
        return stay
    files = (*reading.operands, *(reading.rest or ()))
    if "-" in files or "/dev/stdin" in files:
        return never("reads its source from stdin")
    if any(file.startswith("@") for file in files):
        return no_build("its options are in a response file")
    compiles = reading.has("-c", "-S") or "syntax-only" in reading.values("-f")
    # "$f" alone says nothing about what it is; with -c it can only be a source.
    if not any(file.endswith(SOURCES) or (compiles and file.endswith(UNKNOWN)) for file in files):
        return no_build("names no source file")
    out = first_outside(call, reading.values("-o", "-MF", "-MJ", "-dumpdir", "-aux-info"))
    if out is not None:
        return out
    return Build(CHECK if "syntax-only" in reading.values("-f") else COMPILE)


def sources(argv: Sequence[str]) -> tuple[str, ...]:
    """The source files that *argv* names."""
    reading = _OPTIONS.read(argv[1:])
    return tuple(file for file in (*reading.operands, *(reading.rest or ())) if file.endswith(SOURCES))


def _cores(_argv: Sequence[str], _kind: Kind) -> int:
    return 1


TOOLCHAIN = Toolchain(
    name="cc",
    title="C and C++ compilers",
    programs=_NAMES,
    claims=claims,
    keywords=("gcc", "g++", "clang", "cc", "c++"),
    kinds=(COMPILE, CHECK),
    judge=judge,
    cores=_cores,
    examples=(
        Example("gcc -O2 -c greet.c", "cc.compile"),
        Example("gcc main.c util.c -o app -lm", "cc.compile"),
        Example("g++ -std=c++20 -Wall -Wextra -Iinclude main.cpp -o build/main", "cc.compile"),
        Example("clang++-15 -g -fsanitize=address t.cc", "cc.compile"),
        Example("x86_64-linux-gnu-gcc-12 -DX=1 x.c", "cc.compile"),
        Example("cc -x c++ -c a.h", "cc.compile"),
        Example("clang -fsyntax-only main.c", "cc.check"),
        Example("gcc -O3 -march=native *.c -o all", "cc.compile", why="the shell expands the pattern"),
        Example("gcc a.o b.o -o app", reason="not-a-build", why="a link alone is quick, and its inputs are here"),
        Example("gcc --version", reason="never-intercept"),
        Example("gcc -v", reason="never-intercept"),
        Example("clang -v", reason="never-intercept"),
        Example("gcc -print-search-dirs", reason="never-intercept"),
        Example("gcc -dumpmachine", reason="never-intercept"),
        Example("gcc -E main.c", reason="never-intercept"),
        Example("gcc -x c -", reason="never-intercept", why="the source comes from stdin"),
        Example("gcc -o /tmp/t t.c", reason="output-outside-roots"),
        Example("gcc @options.rsp main.c", reason="not-a-build"),
        Example("gcc", reason="not-a-build"),
    ),
    notes="A compiler line counts when it names a source. Git-ignored headers are inputs and travel.",
)
