"""ctest; off by default. See ctest.md."""

from __future__ import annotations

from collections.abc import Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import Options, positive_int
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, first_outside, held_back, never

RUN = Kind("ctest", Products.OUTPUT, repeatable=False, ignored_inputs=True, tools=("c",))

_OPTIONS = Options(
    flags="-V --verbose -VV --extra-verbose --debug --output-on-failure --stop-on-failure -F -Q --quiet --progress "
    "--no-compress-output --rerun-failed --force-new-ctest-process --schedule-random --interactive-debug-mode "
    "--no-label-summary --no-subproject-summary --no-tests=error --no-tests=ignore",
    valued="--preset -C --build-config -O --output-log --output-junit -R --tests-regex -E --exclude-regex -L "
    "--label-regex -LE --label-exclude -FA --fixture-exclude-any -FS -FC -I --tests-information --repeat "
    "--repeat-until-fail --timeout --stop-time --test-load --test-dir --max-width --resource-spec-file "
    "--tests-from-file --exclude-from-file --test-output-size-passed --test-output-size-failed "
    "--test-output-truncation --no-tests",
    numbers="-j --parallel",
    stays={
        "-h": "asks for help",
        "--help": "asks for help",
        "--version": "asks for the version",
        "-N": "lists, runs nothing",
        "--show-only": "lists, runs nothing",
        "--print-labels": "lists, runs nothing",
        "--list-presets": "lists, runs nothing",
        "-S": "a dashboard script speaks to a server",
        "--script": "a dashboard script speaks to a server",
        "-SP": "a dashboard script speaks to a server",
        "-D": "a dashboard speaks to a server",
        "--dashboard": "a dashboard speaks to a server",
        "-M": "a dashboard speaks to a server",
        "-T": "a dashboard speaks to a server",
        "--submit-index": "a dashboard speaks to a server",
        "--build-and-test": "configures, which asks this machine",
    },
)


def judge(call: Call) -> Judgement:
    if any(word.startswith("--help-") for word in call.words):
        return never("asks for help")
    reading = _OPTIONS.read(call.words)
    return (
        held_back(reading, _OPTIONS)
        or first_outside(call, reading.values("--test-dir", "-O", "--output-log", "--output-junit"))
        or Build(RUN)
    )


def cores(argv: Sequence[str], _kind: Kind) -> int | None:
    """ctest without -j runs one test at a time."""
    values = _OPTIONS.read(argv[1:]).values("-j", "--parallel")
    return positive_int(values) if values else 1


TOOLCHAIN = Toolchain(
    name="ctest",
    title="ctest",
    programs=frozenset({"ctest"}),
    keywords=("ctest",),
    kinds=(RUN,),
    judge=judge,
    cores=cores,
    on_by_default=False,
    examples=(
        Example("ctest", "ctest"),
        Example("ctest --test-dir build -j4 --output-on-failure", "ctest"),
        Example("ctest -R parse -E slow --repeat until-pass:3", "ctest"),
        Example("ctest -N", reason="never-intercept"),
        Example("ctest --version", reason="never-intercept"),
        Example("ctest -D Nightly", reason="never-intercept"),
        Example("ctest --test-dir /tmp/b", reason="output-outside-roots"),
    ),
)
