"""rustc on a source file. See rustc.md."""

from __future__ import annotations

from collections.abc import Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import UNKNOWN, Options
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, first_outside, held_back, never, no_build

COMPILE = Kind("rustc", Products.FILES, repeatable=True, ignored_inputs=False, tools=("rust",))

_OPTIONS = Options(
    flags="-g -O --test -v --verbose",
    valued="-C --codegen --cfg --check-cfg -L -l --crate-type --crate-name --edition --emit -o --out-dir --target -A "
    "-W -D -F --allow --warn --deny --forbid --force-warn --cap-lints -Z --error-format --json --extern --sysroot "
    "--color --remap-path-prefix --diagnostic-width",
    stays={
        "-h": "asks for help",
        "--help": "asks for help",
        "-V": "asks for the version",
        "-vV": "asks for the version",
        "-Vv": "asks for the version",
        "--version": "asks for the version",
        "--print": "prints what rustc knows",
        "--explain": "explains an error code",
    },
)


def judge(call: Call) -> Judgement:
    words = call.words[1:] if call.words and call.words[0].startswith("+") else call.words
    reading = _OPTIONS.read(words)
    stay = held_back(reading, _OPTIONS)
    if stay is not None:
        return stay
    if "help" in reading.values("-C", "-W", "-Z", "--codegen", "--warn"):
        return never("asks for help")
    if reading.has("--json") or any(value.startswith("json") for value in reading.values("--error-format")):
        return never("its JSON messages are read by cargo or an editor")
    files = (*reading.operands, *(reading.rest or ()))
    if "-" in files or "/dev/stdin" in files:
        return never("reads its source from stdin")
    if not any(file.endswith((".rs", UNKNOWN)) for file in files):
        return no_build("names no .rs file")
    return first_outside(call, reading.values("-o", "--out-dir")) or Build(COMPILE)


def sources(argv: Sequence[str]) -> tuple[str, ...]:
    """The source files that *argv* names."""
    reading = _OPTIONS.read([word for word in argv[1:] if not word.startswith("+")])
    return tuple(file for file in (*reading.operands, *(reading.rest or ())) if file.endswith(".rs"))


def targets(argv: Sequence[str]) -> tuple[str, ...]:
    """The values of ``--target``; for :func:`rch.toolchains.rust_targets`."""
    return _OPTIONS.read(argv[1:]).values("--target")


TOOLCHAIN = Toolchain(
    name="rustc",
    title="rustc",
    programs=frozenset({"rustc"}),
    keywords=("rustc",),
    kinds=(COMPILE,),
    judge=judge,
    examples=(
        Example("rustc main.rs", "rustc"),
        Example("rustc -O --edition 2021 -o build/app src/main.rs", "rustc"),
        Example("rustc +nightly --test src/lib.rs -C opt-level=3", "rustc"),
        Example("rustc --print sysroot", reason="never-intercept"),
        Example("rustc --version", reason="never-intercept"),
        Example("rustc -vV", reason="never-intercept"),
        Example("rustc --explain E0308", reason="never-intercept"),
        Example("rustc -C help", reason="never-intercept"),
        Example("rustc -", reason="never-intercept", why="the program comes from stdin"),
        Example("rustc -o /tmp/t main.rs", reason="output-outside-roots"),
        Example("rustc", reason="not-a-build", why="prints its usage"),
    ),
)
