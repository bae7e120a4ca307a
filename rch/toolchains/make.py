"""make and gmake. See make.md."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.option import Options, positive_int
from rch.toolchains.rule import Build, Call, Example, Judgement, Toolchain, first_outside, held_back, never
from rch.toolchains.target import is_test, stays_here

MAKE = Kind("make", Products.FILES, repeatable=True, ignored_inputs=True, tools=("c",), confidence=0.85)
TEST = Kind("make.test", Products.FILES, repeatable=False, ignored_inputs=True, tools=("c",), confidence=0.85)

OPTIONS = Options(
    flags="-b -m -B --always-make -d -e --environment-overrides -i --ignore-errors -k --keep-going -L "
    "--check-symlink-times -r --no-builtin-rules -R --no-builtin-variables -s --silent --quiet --no-silent -S "
    "--no-keep-going --stop --trace -w --print-directory --no-print-directory --warn-undefined-variables",
    valued="-C --directory -f --file --makefile -I --include-dir -o --old-file --assume-old -W --what-if --new-file "
    "--assume-new -E --eval",
    attached="--debug -O --output-sync --shuffle --jobserver-style",
    numbers="-j --jobs -l --load-average --max-load",
    stays={
        "-n": "a dry run",
        "--dry-run": "a dry run",
        "--just-print": "a dry run",
        "--recon": "a dry run",
        "-q": "only asks whether there is work",
        "--question": "only asks whether there is work",
        "-t": "only touches files",
        "--touch": "only touches files",
        "-p": "prints make's rules",
        "--print-data-base": "prints make's rules",
        "-v": "asks for the version",
        "--version": "asks for the version",
        "-h": "asks for help",
        "--help": "asks for help",
    },
    bundles=True,
)
_VARIABLE = re.compile(r"[^=\s:]+(?::{0,3}|\?|\+|!)=")


def judge(call: Call) -> Judgement:
    reading = OPTIONS.read(call.words)
    stay = held_back(reading, OPTIONS)
    if stay is not None:
        return stay
    if "-" in reading.values("-f", "--file", "--makefile"):
        return never("reads its makefile from stdin")
    targets = [w for w in (*reading.operands, *(reading.rest or ())) if not _VARIABLE.match(w)]
    for target in targets:
        word = stays_here(target)
        if word:
            return never(f"target {target!r}")
    out = first_outside(call, reading.values("-C", "--directory"))
    return out or Build(TEST if any(is_test(target) for target in targets) else MAKE)


def cores(argv: Sequence[str], _kind: Kind) -> int | None:
    """make without -j runs one command at a time; a bare -j has no limit of its own."""
    values = OPTIONS.read(argv[1:]).values("-j", "--jobs")
    return positive_int(values) if values else 1


TOOLCHAIN = Toolchain(
    name="make",
    title="make",
    programs=frozenset({"make", "gmake"}),
    keywords=("make",),
    kinds=(MAKE, TEST),
    judge=judge,
    cores=cores,
    examples=(
        Example("make", "make"),
        Example("make -j8", "make"),
        Example("make -j 4 all", "make"),
        Example("make -C src -f build.mk -kB CC=clang V=1 lib/libx.a", "make"),
        Example("gmake --jobs=4 --no-print-directory", "make"),
        Example("make test", "make.test"),
        Example("make check VERBOSE=1", "make.test"),
        Example("make build/install.o", "make", why="a file, not an installation"),
        Example("make install", reason="never-intercept"),
        Example("make DESTDIR=/tmp/x install", reason="never-intercept"),
        Example("make uninstall", reason="never-intercept"),
        Example("make clean", reason="never-intercept"),
        Example("make distclean", reason="never-intercept"),
        Example("make clean all", reason="never-intercept", why="one target that stays keeps the call"),
        Example("make deploy", reason="never-intercept"),
        Example("make run", reason="never-intercept"),
        Example("make fmt", reason="never-intercept"),
        Example("make help", reason="never-intercept"),
        Example("make docker-push", reason="never-intercept"),
        Example("make db:migrate", reason="never-intercept"),
        Example("make menuconfig", reason="never-intercept"),
        Example("make -n", reason="never-intercept"),
        Example("make -kn all", reason="never-intercept", why="-n hides among joined flags"),
        Example("make --dry-run all", reason="never-intercept"),
        Example("make --version", reason="never-intercept"),
        Example("make -v", reason="never-intercept"),
        Example("make -f -", reason="never-intercept", why="the makefile comes from stdin"),
        Example("make --unheard-of", reason="not-a-build"),
    ),
    notes="""\
A target stays here when one of its words (between `-`, `_`, `:`) names something to do rather than something to
build: install, deploy, run, serve, fmt, clean, help, publish, docker, … The list is `target.py`. A target with a slash
or a dot is a file and is built like any other. Git-ignored files are inputs and travel. `make release` stays: half of
the makefiles build with it, the other half publish.""",
)
