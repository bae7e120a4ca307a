"""ninja (also ninja-build and samu). See ninja.md."""

from __future__ import annotations

from collections.abc import Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import Options, positive_int
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, first_outside, held_back, never
from rch.toolchains.target import is_test, stays_here

NINJA = Kind("ninja", Products.FILES, repeatable=True, ignored_inputs=True, tools=("c",))
TEST = Kind("ninja.test", Products.FILES, repeatable=False, ignored_inputs=True, tools=("c",))

OPTIONS = Options(
    flags="-v --verbose --quiet",
    valued="-C -f -j -k -l -d -w",
    stays={
        "-n": "a dry run",
        "-t": "a tool of ninja, not a build",
        "-h": "asks for help",
        "--help": "asks for help",
        "--version": "asks for the version",
    },
    bundles=True,
)


def judge(call: Call) -> Judgement:
    reading = OPTIONS.read(call.words)
    stay = held_back(reading, OPTIONS)
    if stay is not None:
        return stay
    if "list" in reading.values("-d", "-w"):
        return never("lists, builds nothing")
    targets = (*reading.operands, *(reading.rest or ()))
    for target in targets:
        if stays_here(target):
            return never(f"target {target!r}")
    out = first_outside(call, reading.values("-C"))
    return out or Build(TEST if any(is_test(target) for target in targets) else NINJA)


def cores(argv: Sequence[str], _kind: Kind) -> int | None:
    return positive_int(OPTIONS.read(argv[1:]).values("-j"))


TOOLCHAIN = Toolchain(
    name="ninja",
    title="ninja",
    programs=frozenset({"ninja", "ninja-build", "samu"}),
    keywords=("ninja", "samu"),
    kinds=(NINJA, TEST),
    judge=judge,
    cores=cores,
    examples=(
        Example("ninja", "ninja"),
        Example("ninja -C build -j8 app", "ninja"),
        Example("ninja -v -k 0", "ninja", why="-v is verbose, not the version"),
        Example("ninja -Cout/Release chrome", "ninja"),
        Example("ninja -C build test", "ninja.test"),
        Example("ninja install", reason="never-intercept"),
        Example("ninja -C build clean", reason="never-intercept"),
        Example("ninja -n", reason="never-intercept"),
        Example("ninja -vn", reason="never-intercept"),
        Example("ninja -t compdb", reason="never-intercept"),
        Example("ninja -t clean", reason="never-intercept"),
        Example("ninja --version", reason="never-intercept"),
        Example("ninja -C /tmp/out", reason="output-outside-roots"),
    ),
    notes="Targets are judged as those of make.",
)
