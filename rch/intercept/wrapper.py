"""Wrappers in front of a command: ``env A=1 timeout 60 nice -n 5 cargo build``. Pure.

A wrapper that is looked through stays where it is; ``rch exec --`` goes behind it (coverage B-5).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rch.intercept.wordlist import KEEPING_WRAPPERS
from rch.toolchains.option import UNKNOWN, Options

ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\+?=(.*)\Z", re.DOTALL)


_MAX_WRAPPERS = 16  # people stack three


@dataclass(frozen=True)
class Unwrapped:
    """Where the real command begins.

    at:          index of its first word; len(words) if there is none.
    names:       the wrappers passed, in order.
    assignments: variables that they set for it (``env``).
    keeps:       the wrapper behind which everything stays here, or "".
    unsure:      why it cannot be said where the command begins, or "".
    moved:       a wrapper changes the directory.
    """

    at: int
    names: tuple[str, ...] = ()
    assignments: Mapping[str, str] = field(default_factory=dict)
    keeps: str = ""
    unsure: str = ""
    moved: bool = False


@dataclass(frozen=True)
class _Rule:
    options: Options
    operands: int = 0  # own operands before the command: timeout's duration, taskset's mask
    refuses: frozenset[str] = frozenset()  # options with which what it runs is not certain, or not as usual
    tells: frozenset[str] = frozenset()  # options with which it runs nothing


_RULES: Mapping[str, _Rule] = {
    "env": _Rule(
        Options(
            flags="-v --debug -0 --null -i --ignore-environment",
            valued="-u --unset -C --chdir -S --split-string",
            attached="--default-signal --ignore-signal --block-signal",
            bundles=True,
            stop_at_operand=True,
        ),
        refuses=frozenset({"-i", "--ignore-environment", "-S", "--split-string"}),
    ),
    "time": _Rule(
        Options(
            flags="-p --portability -v --verbose -a --append -q --quiet -l",
            valued="-f --format -o --output",
            bundles=True,
            stop_at_operand=True,
        )
    ),
    "timeout": _Rule(
        Options(
            flags="--preserve-status --foreground -v --verbose -p -f",
            valued="-s --signal -k --kill-after",
            bundles=True,
            stop_at_operand=True,
        ),
        operands=1,
    ),
    "nice": _Rule(
        Options(
            flags=" ".join(f"-{n}" for n in range(20)) + " " + " ".join(f"--{n}" for n in range(1, 21)),
            valued="-n --adjustment",
            stop_at_operand=True,
        )
    ),
    "nohup": _Rule(Options(stop_at_operand=True)),
    "coproc": _Rule(Options(stop_at_operand=True)),
    "stdbuf": _Rule(Options(valued="-i -o -e --input --output --error", stop_at_operand=True)),
    "command": _Rule(Options(flags="-p -v -V", bundles=True, stop_at_operand=True), tells=frozenset({"-v", "-V"})),
    "exec": _Rule(
        Options(flags="-c -l", valued="-a", bundles=True, stop_at_operand=True), refuses=frozenset({"-c", "-a"})
    ),
    "ionice": _Rule(
        Options(
            flags="-t --ignore",
            valued="-c --class -n --classdata -p --pid -P --pgid -u --uid",
            bundles=True,
            stop_at_operand=True,
        ),
        tells=frozenset({"-p", "--pid", "-P", "--pgid", "-u", "--uid"}),
    ),
    "taskset": _Rule(
        Options(flags="-a --all-tasks -c --cpu-list -p --pid", bundles=True, stop_at_operand=True),
        operands=1,
        tells=frozenset({"-p", "--pid"}),
    ),
    "numactl": _Rule(
        Options(
            flags="-l --localalloc -a --all -b --balancing",
            valued="-i --interleave -w --weighted-interleave -p --preferred -P --preferred-many -m --membind -N "
            "--cpunodebind -C --physcpubind",
            stop_at_operand=True,
        )
    ),
}

WRAPPERS = frozenset(_RULES)


def program_name(word: str) -> str:
    """The name by which *word* is known: the base name of an absolute or home path, else the word itself.

    A relative path stays as typed: ``./make`` is the project's own program.
    """
    head, slash, base = word.rpartition("/")
    if slash and (head == "" or head[0] in "/~"):
        return base
    return word


_BARE = Unwrapped(0)


def unwrap(words: Sequence[str]) -> Unwrapped:
    """Look through the wrappers at the beginning of *words*."""
    if words:
        first = program_name(words[0])
        if first not in _RULES and first not in KEEPING_WRAPPERS:
            return _BARE
    at = 0
    names: list[str] = []
    assignments: dict[str, str] = {}
    moved = False

    def done(*, keeps: str = "", unsure: str = "") -> Unwrapped:
        return Unwrapped(at, tuple(names), assignments, keeps, unsure, moved)

    while at < len(words):
        if len(names) >= _MAX_WRAPPERS:
            return done(unsure=f"more than {_MAX_WRAPPERS} wrappers")
        name = program_name(words[at])
        if name in KEEPING_WRAPPERS:
            return done(keeps=name)
        rule = _RULES.get(name)
        if rule is None:
            return done()
        reading = rule.options.read(words[at + 1 :])
        if reading.unknown:
            return done(unsure=f"{name} {reading.unknown}")
        if any(option in rule.tells for option, _ in reading.options):
            at = len(words)
            return done()
        refused = next((option for option, _ in reading.options if option in rule.refuses), "")
        if refused:
            return done(unsure=f"{name} {refused}")
        moved = moved or reading.has("-C", "--chdir")
        # Without "--" the command is the operands; behind "--" it is the rest.
        behind = reading.rest if reading.rest is not None and not reading.operands else reading.operands
        if reading.rest is not None and reading.operands:
            behind = (*reading.operands, *reading.rest)
        start = len(words) - len(behind)
        if name == "env":
            while start < len(words) and (found := ASSIGNMENT.match(words[start])):
                assignments[found[1]] = found[2]
                start += 1
        if start < len(words) and words[start].startswith(UNKNOWN) and rule.operands == 0:
            names.append(name)
            at = start
            return done(unsure=f"what {name} runs is not known before the shell runs it")
        names.append(name)
        at = start + rule.operands
    at = min(at, len(words))
    return done()
