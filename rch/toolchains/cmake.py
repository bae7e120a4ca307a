"""cmake --build. See cmake.md."""

from __future__ import annotations

from collections.abc import Sequence

from rch.intercept.decision import Kind, Products
from rch.toolchains.make import OPTIONS as MAKE_OPTIONS
from rch.toolchains.ninja import OPTIONS as NINJA_OPTIONS
from rch.toolchains.option import Options, positive_int
from rch.toolchains.rule import (
    Build,
    Call,
    Example,
    Judgement,
    Stay,
    Toolchain,
    first_outside,
    held_back,
    never,
    no_build,
)
from rch.toolchains.target import is_test, stays_here

BUILD = Kind("cmake.build", Products.FILES, repeatable=True, ignored_inputs=True, tools=("c",))
TEST = Kind("cmake.test", Products.FILES, repeatable=False, ignored_inputs=True, tools=("c",))

_TELLS = {
    "-h": "asks for help",
    "--help": "asks for help",
    "--version": "asks for the version",
    "--list-presets": "lists, builds nothing",
    "--open": "opens a program here",
}
_OPTIONS = Options(
    flags="--clean-first --use-stderr -v --verbose",
    valued="--build --config --preset --resolve-package-references",
    numbers="-j --parallel",
    stays=_TELLS,
)


def judge(call: Call) -> Judgement:
    if not call.words or call.words[0] != "--build":
        asks = next((_TELLS[word] for word in call.words if word in _TELLS), None)
        return never(asks) if asks else no_build("only 'cmake --build' builds")
    words, targets = _take_targets(call.words)
    reading = _OPTIONS.read(words)
    stay = held_back(reading, _OPTIONS)
    if stay is not None:
        return stay
    for target in targets:
        word = stays_here(target)
        if word:
            return never(f"target {target!r}")
    native = _judge_native(reading.rest or ())
    if native is not None:
        return native
    out = first_outside(call, (*reading.values("--build"), *reading.operands))
    more = (*targets, *(reading.rest or ()))
    return out or Build(TEST if any(is_test(target) for target in more) else BUILD)


def _take_targets(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """*words* without ``--target a b``, and the targets: the only option of cmake with several values."""
    kept: list[str] = []
    targets: list[str] = []
    taking = False
    for at, word in enumerate(words):
        if word == "--":
            return [*kept, *words[at:]], targets
        if word in ("-t", "--target"):
            taking = True
        elif word.startswith("--target="):
            targets.append(word.partition("=")[2])
            taking = False
        elif word.startswith("-"):
            taking = False
            kept.append(word)
        elif taking:
            targets.append(word)
        else:
            kept.append(word)
    return kept, targets


def _judge_native(words: Sequence[str]) -> Stay | None:
    """What the options after ``--`` say, read as make's and as ninja's: which of them is behind it is not known."""
    for options in (MAKE_OPTIONS, NINJA_OPTIONS):
        reading = options.read(words)
        dry = [
            name for name, _ in reading.options if name in ("-n", "--dry-run", "--just-print", "--help", "--version")
        ]
        if dry:
            return never(f"the build tool is given {dry[0]}")
        for target in reading.operands:
            if stays_here(target):
                return never(f"target {target!r}")
    return None


def cores(argv: Sequence[str], _kind: Kind) -> int | None:
    words, _targets = _take_targets(argv[1:])
    reading = _OPTIONS.read(words)
    values = reading.values("-j", "--parallel") or MAKE_OPTIONS.read(reading.rest or ()).values("-j", "--jobs")
    return positive_int(values)


TOOLCHAIN = Toolchain(
    name="cmake",
    title="cmake --build",
    programs=frozenset({"cmake"}),
    keywords=("cmake",),
    kinds=(BUILD, TEST),
    judge=judge,
    cores=cores,
    examples=(
        Example("cmake --build build", "cmake.build"),
        Example("cmake --build build -j 8 --config Release --target app lib", "cmake.build"),
        Example("cmake --build . --parallel 4 --clean-first -v", "cmake.build"),
        Example("cmake --build build -- -j8 -k", "cmake.build"),
        Example("cmake --build --preset debug", "cmake.build"),
        Example("cmake --build build --target test", "cmake.test"),
        Example("cmake --build b --target install", reason="never-intercept"),
        Example("cmake --build b --target=clean", reason="never-intercept"),
        Example("cmake --build b -t app install", reason="never-intercept", why="the second target counts too"),
        Example("cmake --build b -- -n", reason="never-intercept", why="a dry run of the tool behind it"),
        Example("cmake --build b -- install", reason="never-intercept"),
        Example("cmake --build /tmp/b", reason="output-outside-roots"),
        Example(
            "cmake -S . -B build -DCMAKE_BUILD_TYPE=Release", reason="not-a-build", why="configuring asks this machine"
        ),
        Example("cmake ..", reason="not-a-build"),
        Example("cmake --install build", reason="not-a-build"),
        Example("cmake -E make_directory build", reason="not-a-build"),
        Example("cmake --version", reason="never-intercept"),
    ),
    notes="Configuring stays here. Targets are judged as those of make.",
)
