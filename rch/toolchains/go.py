"""go build, test and vet. See go.md."""

from __future__ import annotations

from collections.abc import Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import UNKNOWN, Options, positive_int
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, first_outside, held_back, never, no_build

_GO = ("go",)
BUILD = Kind("go.build", Products.FILES, repeatable=True, ignored_inputs=False, tools=_GO)
TEST = Kind("go.test", Products.OUTPUT, repeatable=False, ignored_inputs=False, tools=_GO)
TEST_BINARY = Kind("go.test-binary", Products.FILES, repeatable=True, ignored_inputs=False, tools=_GO)
VET = Kind("go.vet", Products.OUTPUT, repeatable=True, ignored_inputs=False, tools=_GO)


def _both(names: str) -> str:
    """go takes -name and --name alike."""
    return " ".join(f"-{name} --{name}" for name in names.split())


_TELLS = {
    "-h": "asks for help",
    "-help": "asks for help",
    "--help": "asks for help",
    "-n": "a dry run",
    "--n": "a dry run",
}
_BUILD = Options(
    flags=_both("a race msan asan cover v work x linkshared modcacherw trimpath json"),
    valued=_both(
        "C p covermode coverpkg asmflags buildmode compiler gccgoflags gcflags installsuffix ldflags mod "
        "modfile"
        " overlay pgo pkgdir tags toolexec o exec"
    ),
    attached=_both("buildvcs race cover trimpath v"),
    stays=_TELLS,
    single=True,
)
_TEST = _BUILD.plus(
    flags=_both("c benchmem failfast short fullpath i"),
    valued=_both(
        "run skip bench benchtime count cpu parallel timeout shuffle vet blockprofile blockprofilerate coverprofile"
        " cpuprofile memprofile memprofilerate mutexprofile mutexprofilefraction outputdir trace fuzztime"
        " fuzzminimizetime test.run test.v test.timeout"
    ),
    attached=_both("short benchmem failfast json"),
    stays={
        "-list": "lists, runs nothing",
        "--list": "lists, runs nothing",
        "-fuzz": "fuzzing goes on until it is stopped",
        "--fuzz": "fuzzing goes on until it is stopped",
    },
)
_VET = _BUILD.plus(
    valued=_both("vettool c"),
    stays={
        "-fix": "edits the sources",
        "--fix": "edits the sources",
        "-V": "asks for the version",
        "-flags": "only tells",
    },
)
_NEVER = {
    **dict.fromkeys(("install", "get"), "changes this machine's Go"),
    **dict.fromkeys(("run",), "starts the program here"),
    **dict.fromkeys(("generate", "fmt", "fix", "mod", "work", "clean", "telemetry"), "changes files here"),
    **dict.fromkeys(("env", "version", "list", "doc", "help", "bug", "tool"), "only tells"),
}


def judge(call: Call) -> Judgement:
    words = call.words
    if words and words[0].partition("=")[0] in ("-C", "--C"):
        words = words[1:] if "=" in words[0] else words[2:]
    if not words:
        return no_build("go without a command")
    name, *rest = words
    if name in _NEVER:
        return never(f"go {name} {_NEVER[name]}")
    if name in ("-h", "-help", "--help", "-V", "--version"):
        return never("only tells")
    if name not in ("build", "test", "vet"):
        return no_build(f"go {name} is not a command rch sends out".replace(UNKNOWN, "…"))
    table = {"build": _BUILD, "test": _TEST, "vet": _VET}[name]
    if name == "test":
        rest = rest[: rest.index("-args")] if "-args" in rest else rest
    reading = table.read(rest)
    stay = held_back(reading, table)
    if stay is not None:
        return stay
    if "-" in reading.operands:
        return never("reads its source from stdin")
    outputs = reading.values(
        *_both("o coverprofile cpuprofile memprofile blockprofile mutexprofile trace outputdir").split()
    )
    out = first_outside(call, outputs)
    if out is not None:
        return out
    if name == "test":
        return Build(TEST_BINARY if reading.has("-c", "--c") else TEST)
    return Build(BUILD if name == "build" else VET)


def cores(argv: Sequence[str], kind: Kind) -> int | None:
    table = _TEST if kind in (TEST, TEST_BINARY) else _BUILD
    return positive_int(table.read(argv[2:]).values("-p", "--p"))


TOOLCHAIN = Toolchain(
    name="go",
    title="go",
    programs=frozenset({"go"}),
    keywords=("go",),
    kinds=(BUILD, TEST, TEST_BINARY, VET),
    judge=judge,
    cores=cores,
    examples=(
        Example("go build", "go.build"),
        Example("go build -o bin/app -ldflags '-s -w' ./cmd/app", "go.build"),
        Example("go build ./...", "go.build"),
        Example("go test ./... -race -count=1 -run TestX -v", "go.test"),
        Example("go test -c -o x.test ./pkg", "go.test-binary"),
        Example("go vet ./...", "go.vet"),
        Example("go -C sub build", "go.build"),
        Example("go build -n ./...", reason="never-intercept", why="a dry run"),
        Example("go test -list . ./...", reason="never-intercept"),
        Example("go test -fuzz=FuzzX ./parse", reason="never-intercept"),
        Example("go run .", reason="never-intercept"),
        Example("go install ./...", reason="never-intercept"),
        Example("go mod tidy", reason="never-intercept"),
        Example("go generate ./...", reason="never-intercept"),
        Example("go version", reason="never-intercept"),
        Example("go build -o /tmp/app .", reason="output-outside-roots"),
        Example("go", reason="not-a-build"),
    ),
)
