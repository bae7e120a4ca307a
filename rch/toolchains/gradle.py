"""gradle and ./gradlew: build and test; off by default. See gradle.md."""

from __future__ import annotations

import re

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import UNKNOWN, Options
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, first_outside, held_back, never, no_build

BUILD = Kind("gradle.build", Products.FILES, repeatable=True, ignored_inputs=False, tools=("java",))
TEST = Kind("gradle.test", Products.FILES, repeatable=False, ignored_inputs=False, tools=("java",))

_OPTIONS = Options(
    flags="-q --quiet -i --info -d --debug -s --stacktrace -S --full-stacktrace -w --warn --offline --no-daemon "
    "--daemon --parallel --no-parallel --build-cache --no-build-cache --configure-on-demand --no-configure-on-demand "
    "--configuration-cache --no-configuration-cache --rerun-tasks --rerun -a --no-rebuild --refresh-dependencies "
    "--profile --continue --no-watch-fs --watch-fs --warning-mode=all --scan --no-scan",
    valued="-x --exclude-task -p --project-dir -b --build-file -c --settings-file -I --init-script -g "
    "--gradle-user-home --max-workers --console --warning-mode --tests --priority --include-build "
    "--project-cache-dir -F --dependency-verification",
    prefixes=("-P", "-D", "--project-prop=", "--system-prop="),
    stays={
        "-h": "asks for help",
        "-?": "asks for help",
        "--help": "asks for help",
        "-v": "asks for the version",
        "--version": "asks for the version",
        "-V": "asks for the version",
        "-m": "a dry run",
        "--dry-run": "a dry run",
        "-t": "waits for changes",
        "--continuous": "waits for changes",
        "--stop": "stops daemons here",
        "--status": "only tells",
        "--foreground": "serves here",
        "--write-locks": "edits the sources",
        "-M": "edits the sources",
        "--write-verification-metadata": "edits the sources",
    },
)
_BUILDS = frozenset({"build", "assemble", "classes", "testClasses", "jar", "war", "shadowJar", "bootJar"})
_TESTS = frozenset({"test", "check", "integrationTest", "build"})
_NAMED = re.compile(r"(?:compile|assemble|bundle)[A-Z]\w*\Z")
_NAMED_TEST = re.compile(r"test[A-Z]\w*|\w+Test\Z")
_WRAPPER = re.compile(r"(?:\./|(?:\.\./)+)?gradlew\Z")


def claims(word: str) -> bool:
    return _WRAPPER.match(word) is not None


def judge(call: Call) -> Judgement:
    reading = _OPTIONS.read(call.words)
    stay = held_back(reading, _OPTIONS)
    if stay is not None:
        return stay
    tasks = [task.rpartition(":")[2] for task in (*reading.operands, *(reading.rest or ())) if task != UNKNOWN]
    if not tasks:
        return no_build("no task named")
    tests = False
    builds = False
    for task in tasks:
        test = task in _TESTS or _NAMED_TEST.match(task) is not None
        if task == "clean":
            continue  # its deletions come back with the Delta
        if not test and task not in _BUILDS and not _NAMED.match(task):
            return no_build(f"task {task!r} is not one that rch sends out")
        tests = tests or test
        builds = True
    if not builds:
        return never("clean alone")
    return first_outside(call, reading.values("-p", "--project-dir")) or Build(TEST if tests else BUILD)


TOOLCHAIN = Toolchain(
    name="gradle",
    title="gradle",
    programs=frozenset({"gradle"}),
    claims=claims,
    keywords=("gradle",),
    kinds=(BUILD, TEST),
    judge=judge,
    on_by_default=False,
    examples=(
        Example("gradle assemble", "gradle.build"),
        Example("./gradlew build -x test --no-daemon", "gradle.test", why="build includes the checks"),
        Example("./gradlew :app:testDebugUnitTest --tests 'a.B*' --info", "gradle.test"),
        Example("./gradlew clean test", "gradle.test"),
        Example("gradlew :lib:compileJava -Pfast", "gradle.build"),
        Example("./gradlew clean", reason="never-intercept"),
        Example("./gradlew test --continuous", reason="never-intercept"),
        Example("./gradlew build --dry-run", reason="never-intercept"),
        Example("./gradlew --stop", reason="never-intercept"),
        Example("./gradlew --version", reason="never-intercept"),
        Example("./gradlew bootRun", reason="not-a-build"),
        Example("./gradlew publish", reason="not-a-build"),
        Example("./gradlew tasks", reason="not-a-build"),
        Example("gradle", reason="not-a-build"),
    ),
)
