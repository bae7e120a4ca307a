"""bun test and bun typecheck. See bun.md."""

from __future__ import annotations

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import Options
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, first_outside, held_back, never, no_build

TEST = Kind("bun.test", Products.OUTPUT, repeatable=False, ignored_inputs=False, tools=("node",))
TYPECHECK = Kind("bun.typecheck", Products.OUTPUT, repeatable=True, ignored_inputs=False, tools=("node",))

_STAYS = {
    "-h": "asks for help",
    "--help": "asks for help",
    "-v": "asks for the version",
    "--version": "asks for the version",
    "--revision": "asks for the version",
    "--watch": "waits for changes",
    "--hot": "waits for changes",
    "--inspect": "a debugger is interactive",
    "--inspect-wait": "a debugger is interactive",
    "--inspect-brk": "a debugger is interactive",
}
_GLOBAL = Options(flags="--silent --bun -b", valued="--cwd --filter -F -c", attached="--config", stays=_STAYS)
_TEST = _GLOBAL.plus(
    flags="-u --update-snapshots --only --todo --coverage --randomize --concurrent --pass-with-no-tests --smol "
    "--only-failures --dots",
    valued="--timeout --rerun-each -t --test-name-pattern --preload -r --reporter --reporter-outfile "
    "--coverage-reporter --coverage-dir --seed --max-concurrency --env-file --define -d --path-ignore-patterns",
    attached="--bail",
)


def judge(call: Call) -> Judgement:
    words = call.words
    name = next((word for word in words if not word.startswith("-")), "")
    asks = next((_STAYS[word] for word in words if word in _STAYS), "")
    if asks:
        return never(asks)
    if name == "test" and words[0] == "test":
        reading = _TEST.read(words[1:])
        return (
            held_back(reading, _TEST)
            or first_outside(call, reading.values("--reporter-outfile", "--coverage-dir"))
            or Build(TEST)
        )
    reading = _GLOBAL.read(words)
    operands = reading.operands[1:] if reading.operands[:1] == ("run",) else reading.operands
    if operands == ("typecheck",):
        return held_back(reading, _GLOBAL) or Build(TYPECHECK)
    return no_build("only 'bun test' and 'bun typecheck' are sent out")


TOOLCHAIN = Toolchain(
    name="bun",
    title="bun",
    programs=frozenset({"bun"}),
    keywords=("bun",),
    kinds=(TEST, TYPECHECK),
    judge=judge,
    examples=(
        Example("bun test", "bun.test"),
        Example("bun test src/a.test.ts --timeout 20000 -t 'parses' --bail", "bun.test"),
        Example("bun typecheck", "bun.typecheck"),
        Example("bun run typecheck", "bun.typecheck"),
        Example("bun run --silent typecheck", "bun.typecheck"),
        Example("bun test --watch", reason="never-intercept"),
        Example("bun --watch test", reason="never-intercept"),
        Example("bun test --help", reason="never-intercept"),
        Example("bun --version", reason="never-intercept"),
        Example("bun install", reason="not-a-build"),
        Example("bun run dev", reason="not-a-build", why="a script of the project may do anything"),
        Example("bun src/index.ts", reason="not-a-build"),
    ),
)
