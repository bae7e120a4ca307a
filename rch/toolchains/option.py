"""Reading a tool's options from a table, so that an argument is never mistaken for a target. Pure.

A word of a shell line may hold an expansion whose value only the shell will know. The part that is not known is
:data:`UNKNOWN`, a NUL: no argument can contain one. An unknown part is accepted as the *value* of an option and as an
operand, never as the name of a program, a sub-command or an option, because ``rch exec`` judges again with the real
words before anything leaves the machine.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

UNKNOWN = "\0"
"""Stands in a word for text that only the running shell knows."""


class Takes(enum.Enum):
    """How an option gets its value."""

    NOTHING = "nothing"
    VALUE = "value"  # attached, after "=", or the next word
    ATTACHED = "attached"  # after "=" or attached to a short option; never the next word
    NUMBER = "number"  # as ATTACHED, or the next word if that is a number (make -j 4)


@dataclass(frozen=True)
class Reading:
    """The words after a program's (or sub-command's) name, taken apart.

    options:  (name, value or None) in order, names as the table spells them.
    operands: words that are neither options nor their values, before ``--``.
    rest:     the words after ``--``; None without one.
    unknown:  the first option the table does not have, or "".
    """

    options: tuple[tuple[str, str | None], ...]
    operands: tuple[str, ...]
    rest: tuple[str, ...] | None
    unknown: str

    def has(self, *names: str) -> bool:
        return any(name in names for name, _ in self.options)

    def values(self, *names: str) -> tuple[str, ...]:
        """The values given to any of *names*, in order; options without a value give ""."""
        return tuple(value or "" for name, value in self.options if name in names)


@dataclass(frozen=True)
class Options:
    """A tool's options. The four lists are words separated by blanks.

    prefixes: beginnings of options that carry their value inside the word (``-Wall``, ``-fno-lto``).
    stays:    option -> why a command with it stays local; they need not be listed again as flags.
    bundles:  short flags may be joined (``-Bk``).
    single:   ``-name=value`` and ``-name value`` are long options (go, rustc's ``-Cname`` excepted).
    stop_at_operand: the first operand ends the options; it and all that follows are operands.
    """

    flags: str = ""
    valued: str = ""
    attached: str = ""
    numbers: str = ""
    prefixes: tuple[str, ...] = ()
    stays: Mapping[str, str] = field(default_factory=dict)
    bundles: bool = False
    single: bool = False
    stop_at_operand: bool = False
    table: Mapping[str, Takes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        table = dict.fromkeys(self.stays, Takes.ATTACHED)
        for names, takes in (
            (self.flags, Takes.NOTHING),
            (self.valued, Takes.VALUE),
            (self.attached, Takes.ATTACHED),
            (self.numbers, Takes.NUMBER),
        ):
            table.update(dict.fromkeys(names.split(), takes))
        object.__setattr__(self, "table", MappingProxyType(table))

    def plus(
        self, *, flags: str = "", valued: str = "", attached: str = "", stays: Mapping[str, str] | None = None
    ) -> Options:
        """These options and some more: a sub-command beside the common ones."""
        return Options(
            flags=f"{self.flags} {flags}",
            valued=f"{self.valued} {valued}",
            attached=f"{self.attached} {attached}",
            numbers=self.numbers,
            prefixes=self.prefixes,
            stays={**self.stays, **(stays or {})},
            bundles=self.bundles,
            single=self.single,
            stop_at_operand=self.stop_at_operand,
        )

    def read(self, words: Sequence[str]) -> Reading:
        options: list[tuple[str, str | None]] = []
        operands: list[str] = []
        unknown = ""
        at = 0
        while at < len(words):
            word = words[at]
            at += 1
            if word == "--":
                return Reading(tuple(options), tuple(operands), tuple(words[at:]), unknown)
            if not word.startswith("-") or word == "-":
                operands.append(word)
                if self.stop_at_operand:
                    operands.extend(words[at:])
                    break
                continue
            found = self._split(word)
            if found is None:
                unknown = unknown or word.replace(UNKNOWN, "…")
                continue
            name, value = found[-1]
            options.extend(found[:-1])
            takes = self.table.get(name, Takes.NOTHING)
            follows = words[at] if at < len(words) else None
            if (
                value is None
                and follows is not None
                and (takes is Takes.VALUE or (takes is Takes.NUMBER and _is_number(follows)))
            ):
                value = follows
                at += 1
            options.append((name, value))
        return Reading(tuple(options), tuple(operands), None, unknown)

    def _split(self, word: str) -> list[tuple[str, str | None]] | None:
        """The options in one word; only the last may still want a value. None: the table does not know it."""
        takes = self.table.get(word)
        if takes is not None:
            return [(word, None)]
        name, equals, value = word.partition("=")
        if equals and (word.startswith("--") or self.single):
            takes = self.table.get(name)
            if takes is not None and takes is not Takes.NOTHING:
                return [(name, value)]
        if not word.startswith("--"):
            short = word[:2]
            takes = self.table.get(short)
            if takes in (Takes.VALUE, Takes.ATTACHED, Takes.NUMBER) and short not in self.stays:
                return [(short, word[2:])]
        for prefix in self.prefixes:
            if word.startswith(prefix):
                return [(prefix, word[len(prefix) :])]
        if self.bundles and not word.startswith("--") and len(word) > 2:
            return self._bundle(word)
        return None

    def _bundle(self, word: str) -> list[tuple[str, str | None]] | None:
        found: list[tuple[str, str | None]] = []
        for at, letter in enumerate(word[1:], 2):
            name = f"-{letter}"
            takes = self.table.get(name)
            if takes is None:
                return None
            if takes is Takes.NOTHING or name in self.stays:
                found.append((name, None))
                continue
            return [*found, (name, word[at:] or None)]
        return found


def first_stay(reading: Reading, options: Options) -> str:
    """Why the first option that keeps the command here does so, or ""."""
    return next((options.stays[name] for name, _ in reading.options if name in options.stays), "")


def positive_int(texts: Iterable[str]) -> int | None:
    """The last of *texts* as a whole number above 0; None when there is none or it is something else."""
    last = None
    for last in texts:  # noqa: B007  # the last one counts, as it does for the tools
        pass
    if last is None or not last.isascii() or not last.isdigit():
        return None
    return int(last[:6]) or None


def _is_number(word: str) -> bool:
    return word == UNKNOWN or (word.isascii() and word.replace(".", "", 1).isdigit())


def word_set(text: str) -> frozenset[str]:
    """The words of *text*: long lists stay readable as prose."""
    return frozenset(text.split())
