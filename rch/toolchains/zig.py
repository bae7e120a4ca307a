"""zig build. See zig.md."""

from __future__ import annotations

from collections.abc import Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import UNKNOWN, Options, positive_int
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, first_outside, held_back, never, no_build
from rch.toolchains.target import is_test, stays_here

BUILD = Kind("zig.build", Products.FILES, repeatable=True, ignored_inputs=False, tools=("zig",))
TEST = Kind("zig.test", Products.FILES, repeatable=False, ignored_inputs=False, tools=("zig",))

_OPTIONS = Options(
    flags="--verbose --verbose-link --verbose-cc --verbose-air --verbose-llvm-ir --prominent-compile-errors "
    "-fincremental -fno-incremental -freference-trace -fno-reference-trace -fsys -fno-sys --skip-oom-steps "
    "-fallow-so-scripts -fno-allow-so-scripts --error-limit",
    valued="-p --prefix --prefix-lib-dir --prefix-exe-dir --prefix-include-dir --sysroot --search-prefix --libc "
    "--build-file --cache-dir --global-cache-dir --zig-lib-dir --system --seed --maxrss --color --summary "
    "--build-runner --debounce --error-style",
    attached="-j --release --fork",
    prefixes=("-D", "-freference-trace=", "-fsys=", "-fno-sys="),
    stays={
        "-h": "asks for help",
        "--help": "asks for help",
        "-l": "lists, builds nothing",
        "--list-steps": "lists, builds nothing",
        "--watch": "waits for changes",
        "--webui": "serves a page here",
        "--fetch": "fills a cache here",
        "--fuzz": "fuzzing goes on until it is stopped",
        "--time-report": "serves a page here",
    },
)


def judge(call: Call) -> Judgement:
    if not call.words or call.words[0] != "build":
        shown = call.words[0].replace(UNKNOWN, "…") if call.words else ""
        return no_build(f"only 'zig build' is sent out, not 'zig {shown}'")
    reading = _OPTIONS.read(call.words[1:])
    stay = held_back(reading, _OPTIONS)
    if stay is not None:
        return stay
    for step in reading.operands:
        if stays_here(step):
            return never(f"step {step!r}")
    if reading.rest:
        return never("arguments behind -- are for a program that runs here")
    out = first_outside(call, reading.values("-p", "--prefix", "--prefix-lib-dir", "--prefix-exe-dir", "--cache-dir"))
    return out or Build(TEST if any(map(is_test, reading.operands)) else BUILD)


def cores(argv: Sequence[str], _kind: Kind) -> int | None:
    return positive_int(_OPTIONS.read(argv[2:]).values("-j"))


TOOLCHAIN = Toolchain(
    name="zig",
    title="zig build",
    programs=frozenset({"zig"}),
    keywords=("zig",),
    kinds=(BUILD, TEST),
    judge=judge,
    cores=cores,
    examples=(
        Example("zig build", "zig.build"),
        Example("zig build -Doptimize=ReleaseFast -j4 --summary all", "zig.build"),
        Example("zig build lib docs", "zig.build"),
        Example("zig build test --release=safe", "zig.test"),
        Example("zig build run", reason="never-intercept"),
        Example("zig build run -- --port 80", reason="never-intercept"),
        Example("zig build install", reason="never-intercept"),
        Example("zig build --watch", reason="never-intercept"),
        Example("zig build --help", reason="never-intercept"),
        Example("zig build -l", reason="never-intercept"),
        Example("zig build -p /tmp/out", reason="output-outside-roots"),
        Example("zig fmt src", reason="not-a-build"),
        Example("zig test src/main.zig", reason="not-a-build"),
        Example("zig version", reason="not-a-build"),
    ),
)
