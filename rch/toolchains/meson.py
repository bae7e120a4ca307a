"""meson compile. See meson.md."""

from __future__ import annotations

from collections.abc import Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import Options, positive_int
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, first_outside, held_back, never, no_build
from rch.toolchains.target import stays_here

COMPILE = Kind("meson.compile", Products.FILES, repeatable=True, ignored_inputs=True, tools=("c",))

_OPTIONS = Options(
    flags="-v --verbose",
    valued="-C -j --jobs -l --load-average --ninja-args",
    stays={
        "-h": "asks for help",
        "--help": "asks for help",
        "--version": "asks for the version",
        "--clean": "cleans up here",
        "--vs-args": "not for ninja",
        "--xcode-args": "not for ninja",
    },
)


def judge(call: Call) -> Judgement:
    if not call.words or call.words[0] != "compile":
        if call.words and call.words[0] in ("install", "--version", "--help", "-h"):
            return never(f"meson {call.words[0]}")
        return no_build("only 'meson compile' builds")
    reading = _OPTIONS.read(call.words[1:])
    stay = held_back(reading, _OPTIONS)
    if stay is not None:
        return stay
    if any(set("nth") & set(value.lstrip("[-")[:1]) for value in reading.values("--ninja-args")):
        return never("ninja is given an option that builds nothing")
    for target in reading.operands:
        if stays_here(target.partition(":")[0].rpartition("/")[2]):
            return never(f"target {target!r}")
    return first_outside(call, reading.values("-C")) or Build(COMPILE)


def cores(argv: Sequence[str], _kind: Kind) -> int | None:
    return positive_int(_OPTIONS.read(argv[2:]).values("-j", "--jobs"))


TOOLCHAIN = Toolchain(
    name="meson",
    title="meson compile",
    programs=frozenset({"meson"}),
    keywords=("meson",),
    kinds=(COMPILE,),
    judge=judge,
    cores=cores,
    examples=(
        Example("meson compile", "meson.compile"),
        Example("meson compile -C build -j 4 app", "meson.compile"),
        Example("meson compile -C build --verbose", "meson.compile"),
        Example("meson compile --clean", reason="never-intercept"),
        Example("meson compile --help", reason="never-intercept"),
        Example("meson install -C build", reason="never-intercept"),
        Example("meson setup build", reason="not-a-build", why="configuring asks this machine"),
        Example("meson test -C build", reason="not-a-build"),
        Example("meson compile -C /tmp/b", reason="output-outside-roots"),
    ),
)
