"""tsc --noEmit, also through npx, bunx, pnpm, yarn and node_modules/.bin. See tsc.md."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import Options
from rch.toolchains.rule import Build, Call, Example, Judgement, Stay, Toolchain, held_back, never, no_build

CHECK = Kind("tsc.check", Products.OUTPUT, repeatable=True, ignored_inputs=False, tools=("node",))

_TELLS = {
    "-h": "asks for help",
    "--help": "asks for help",
    "--all": "asks for help",
    "-v": "asks for the version",
    "--version": "asks for the version",
    "--init": "writes tsconfig.json",
    "--showConfig": "only tells",
    "--listFilesOnly": "lists, checks nothing",
    "-w": "waits for changes",
    "--watch": "waits for changes",
}
_OPTIONS = Options(
    flags="--pretty --strict --skipLibCheck --incremental --diagnostics --extendedDiagnostics --traceResolution "
    "--listFiles --explainFiles --allowJs --checkJs --esModuleInterop --noErrorTruncation --preserveWatchOutput "
    "--resolveJsonModule --isolatedModules --noUnusedLocals --noUnusedParameters --noImplicitAny --force "
    "--noUncheckedIndexedAccess --allowImportingTsExtensions --verbatimModuleSyntax --strictNullChecks --noEmit",
    valued="-p --project --target -t --module -m --moduleResolution --lib --jsx --types --typeRoots --rootDir "
    "--baseUrl --jsxImportSource --tsBuildInfoFile --locale --customConditions --maxNodeModuleJsDepth",
    stays=_TELLS,
)
_FRONTS = {"npx": (), "bunx": (), "pnpx": ()}
_LOCAL_BIN = re.compile(r"(?:\./|(?:\.\./)*)?(?:[\w.-]+/)*node_modules/\.bin/(?:tsc|vue-tsc)\Z")
_NAMES = frozenset({"tsc", "vue-tsc"})


def claims(word: str) -> bool:
    return _LOCAL_BIN.match(word) is not None


def judge(call: Call) -> Judgement:
    if call.program in _FRONTS:
        at = _behind_front(call.words)
        if isinstance(at, Stay):
            return at
        return judge_tsc(call.words[at:])
    return judge_tsc(call.words)


def _behind_front(words: Sequence[str]) -> int | Stay:
    """Index behind ``npx [options] tsc``, or why this is something else."""
    for at, word in enumerate(words):
        if word in _NAMES:
            return at + 1
        if word not in ("-y", "--yes", "--no-install", "--no", "--bun", "--", "-p", "--package", "typescript"):
            return no_build("only tsc behind it is sent out")
    return no_build("nothing behind it")


def judge_tsc(words: Sequence[str]) -> Judgement:
    """The words behind ``tsc``."""
    if "-b" in words or "--build" in words:
        return no_build("tsc --build writes files; only --noEmit is sent out")
    reading = _OPTIONS.read([word for word in words if word not in ("true", "false")])
    stay = held_back(reading, _OPTIONS)
    if stay is not None:
        return stay
    at = words.index("--noEmit") if "--noEmit" in words else -1
    if at < 0 or words[at + 1 : at + 2] == ("false",):
        return no_build("only --noEmit is sent out")
    if "-" in reading.operands:
        return never("reads its source from stdin")
    return Build(CHECK)


TOOLCHAIN = Toolchain(
    name="tsc",
    title="tsc --noEmit",
    programs=frozenset({*_NAMES, *_FRONTS}),
    claims=claims,
    keywords=("tsc",),
    kinds=(CHECK,),
    judge=judge,
    cores=lambda _argv, _kind: 1,
    examples=(
        Example("tsc --noEmit", "tsc.check"),
        Example("tsc -p tsconfig.json --noEmit --pretty false", "tsc.check"),
        Example("npx tsc --noEmit", "tsc.check"),
        Example("npx --no-install tsc --noEmit --skipLibCheck", "tsc.check"),
        Example("npx -p typescript tsc --noEmit", "tsc.check"),
        Example("bunx tsc --noEmit", "tsc.check"),
        Example("./node_modules/.bin/tsc --noEmit", "tsc.check"),
        Example("vue-tsc --noEmit", "tsc.check"),
        Example("tsc --noEmit false", reason="not-a-build"),
        Example("tsc", reason="not-a-build", why="writes files all over the tree"),
        Example("tsc -b", reason="not-a-build"),
        Example("tsc --noEmit --watch", reason="never-intercept"),
        Example("tsc -w --noEmit", reason="never-intercept"),
        Example("tsc --init", reason="never-intercept"),
        Example("npx tsc --version", reason="never-intercept"),
        Example("npx create-react-app x", reason="not-a-build"),
        Example("npx eslint .", reason="not-a-build"),
    ),
)
