"""mvn, ./mvnw and mvnd: compile, test, package, verify; off by default. See maven.md."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import UNKNOWN, Options, positive_int
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, first_outside, held_back, never, no_build

BUILD = Kind("maven.build", Products.FILES, repeatable=True, ignored_inputs=False, tools=("java",))
TEST = Kind("maven.test", Products.FILES, repeatable=False, ignored_inputs=False, tools=("java",))

_OPTIONS = Options(
    flags="-B --batch-mode -q --quiet -X --debug -e --errors -o --offline -U --update-snapshots -N --non-recursive -am "
    "--also-make -amd --also-make-dependents -fae --fail-at-end -ff --fail-fast -fn --fail-never -nsu "
    "--no-snapshot-updates -ntp --no-transfer-progress -C --strict-checksums -c --lax-checksums",
    valued="-pl --projects -f --file -P --activate-profiles -T --threads -s --settings -gs --global-settings -t "
    "--toolchains -rf --resume-from -b --builder --color",
    prefixes=("-D", "-P", "--define="),
    stays={
        "-h": "asks for help",
        "--help": "asks for help",
        "-v": "asks for the version",
        "--version": "asks for the version",
        "-V": "asks for the version",
        "--show-version": "asks for the version",
        "-l": "writes a log here",
        "--log-file": "writes a log here",
        "-ep": "asks for a password",
        "-emp": "asks for a password",
    },
)
_BUILDS = frozenset({"compile", "test-compile", "process-classes", "prepare-package", "generate-sources"})
_TESTS = frozenset({"test", "verify", "integration-test", "package"})
_WRAPPER = re.compile(r"(?:\./|(?:\.\./)+)?mvnw\Z")


def claims(word: str) -> bool:
    return _WRAPPER.match(word) is not None


def judge(call: Call) -> Judgement:
    reading = _OPTIONS.read(call.words)
    stay = held_back(reading, _OPTIONS)
    if stay is not None:
        return stay
    goals = [goal for goal in (*reading.operands, *(reading.rest or ())) if goal != UNKNOWN]
    for goal in goals:
        if goal in ("install", "deploy", "site", "site-deploy", "release"):
            return never(f"goal {goal!r}")
        if goal not in _BUILDS and goal not in _TESTS and goal != "clean":
            return no_build(f"goal {goal!r} is not one that rch sends out")
    real = [goal for goal in goals if goal != "clean"]  # its deletions come back with the Delta
    if not real:
        return never("clean alone") if goals else no_build("no goal named")
    out = first_outside(call, reading.values("-f", "--file"))
    return out or Build(TEST if any(goal in _TESTS for goal in real) else BUILD)


def cores(argv: Sequence[str], _kind: Kind) -> int | None:
    """-T 4; -T 1C is per core and leaves it to the estimate; without it one module at a time."""
    values = _OPTIONS.read(argv[1:]).values("-T", "--threads")
    return positive_int(values) if values else 1


TOOLCHAIN = Toolchain(
    name="maven",
    title="maven",
    programs=frozenset({"mvn", "mvnd"}),
    claims=claims,
    keywords=("mvn",),
    kinds=(BUILD, TEST),
    judge=judge,
    cores=cores,
    on_by_default=False,
    examples=(
        Example("mvn compile", "maven.build"),
        Example("mvn -q -B test -Dtest=FooTest", "maven.test"),
        Example("./mvnw clean verify -T 4", "maven.test"),
        Example("mvn package -DskipTests -pl core -am", "maven.test"),
        Example("mvn clean", reason="never-intercept"),
        Example("mvn clean install", reason="never-intercept", why="changes ~/.m2"),
        Example("mvn deploy", reason="never-intercept"),
        Example("mvn --version", reason="never-intercept"),
        Example("mvn spring-boot:run", reason="not-a-build"),
        Example("mvn dependency:tree", reason="not-a-build"),
        Example("mvn", reason="not-a-build"),
    ),
)
