"""May a line be rewritten without giving the agent anything its user's rules would not? Pure (lessons IC-03).

A harness applies its user's rules to the rewritten text, where ``rch exec -- make`` hides ``make`` from them. So rch
applies them first, to the line as written: one simple command that a rule denies or asks about, and the line is left
alone; it is rewritten only where every simple command is allowed by a rule, or the user has allowed everything.
Rules are read more broadly for holding than for allowing, so an error of reading leaves a line alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rch.intercept.shell import Line, read_line
from rch.intercept.wordlist import KEEPING_WRAPPERS, SHELLS
from rch.intercept.wrapper import WRAPPERS, program_name
from rch.toolchains.option import UNKNOWN


class Rule(Protocol):
    """One rule about shell commands."""

    def allows(self, words: Sequence[str], text: str) -> bool:
        """Does it surely cover this command? *text* is the command as written."""

    def holds(self, words: Sequence[str], text: str) -> bool:
        """Could it cover this command? Words may contain UNKNOWN."""


@dataclass(frozen=True)
class Rules:
    """What a user told a harness.

    hold:       rules that deny or ask.
    everything: the user has allowed every command that no rule holds.
    unsure:     why the rules are not known for certain, or "".
    """

    allow: tuple[Rule, ...] = ()
    hold: tuple[Rule, ...] = ()
    everything: bool = False
    unsure: str = ""


@dataclass(frozen=True)
class Stance:
    """rewrite: the rules leave it to us. allowed: by rules alone, so the harness must be told ``allow``."""

    rewrite: bool
    why: str
    allowed: bool = False


@dataclass(frozen=True)
class GlobRule:
    """``make *``, ``npm run test:*``, ``git push``: a text with wildcards. ``prefix`` alone matches too."""

    pattern: str
    _narrow: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _broad: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pattern = self.pattern.strip()
        stem = re.sub(r"(?:[ :]?\*)+\Z", "", pattern)
        quoted = ".*".join(map(re.escape, stem.split("*")))
        ends = r"(?: .*)?" if pattern.endswith((" *", ":*")) else ".*" if pattern.endswith("*") else ""
        object.__setattr__(self, "_narrow", re.compile(quoted + ends, re.DOTALL))
        broad = "(?: .*)?" if re.fullmatch(r"(?: \*)*", pattern[len(stem) :]) else ".*"
        object.__setattr__(self, "_broad", re.compile(quoted + broad, re.DOTALL))

    def allows(self, words: Sequence[str], text: str) -> bool:
        return bool(self._narrow.fullmatch(text) and self._narrow.fullmatch(" ".join(words)))

    def holds(self, words: Sequence[str], text: str) -> bool:
        if any(self._broad.fullmatch(one) for one in (text, " ".join(words))):
            return True
        known, unknown, _ = " ".join(words).partition(UNKNOWN)
        literal = self.pattern.partition("*")[0].rstrip(" :")
        return bool(unknown) and (literal.startswith(known) or known.startswith(literal))


@dataclass(frozen=True)
class WordsRule:
    """A command that begins with these words; each place may have alternatives."""

    words: tuple[tuple[str, ...], ...]

    def allows(self, words: Sequence[str], text: str) -> bool:  # noqa: ARG002 - the protocol's
        return len(words) >= len(self.words) and all(w in one for w, one in zip(words, self.words, strict=False))

    def holds(self, words: Sequence[str], text: str) -> bool:  # noqa: ARG002 - the protocol's
        return len(words) >= len(self.words) and all(
            w in one or UNKNOWN in w for w, one in zip(words, self.words, strict=False)
        )


@dataclass(frozen=True)
class PatternRule:
    """A regular expression that denies or asks; it never allows."""

    pattern: re.Pattern[str]

    def allows(self, words: Sequence[str], text: str) -> bool:  # noqa: ARG002 - the protocol's
        return False

    def holds(self, words: Sequence[str], text: str) -> bool:
        # Gemini matches the text as JSON writes it.
        return any(self.pattern.search(one) for one in (text, " ".join(words), json.dumps(text, ensure_ascii=False)))


EVERY_COMMAND = GlobRule("*")


def stance(line: str, rules: Rules) -> Stance:
    """What *rules* say about *line*; never raises."""
    if rules.unsure:
        return Stance(False, rules.unsure)
    try:
        read = read_line(line.encode("utf-8"))
    except UnicodeEncodeError:
        return Stance(False, "the line is not UTF-8")
    if read.trouble:
        return Stance(False, read.trouble)
    for words, text in (([line], line), *_views(read, line)):
        held = next((rule for rule in rules.hold if rule.holds(words, text)), None)
        if held is not None:
            return Stance(False, f"a rule of the user denies or asks about {text[:80]!r}")
    if rules.everything:
        return Stance(True, "the user has allowed everything that no rule holds")
    trouble = next(_not_allowed(read, line, rules.allow), "")
    return Stance(False, trouble) if trouble else Stance(True, "rules allow every command of the line", allowed=True)


# Behind one of these any word may be the command that runs.
_RUNNERS = WRAPPERS | KEEPING_WRAPPERS | {"eval", "find", "builtin", "source", ".", "npx", "bunx"}

# A shell that is given text is read as the commands in that text; the shell itself is a command too.
_SHELL = re.compile(rf"(?<![\w.-])(?:{'|'.join(sorted(SHELLS))})(?![\w.-])")


def _views(read: Line, line: str) -> Iterator[tuple[list[str], str]]:
    """Every simple command, and behind a wrapper what stands behind each of its words, for rules look past those."""
    data = line.encode("utf-8")
    for found in _SHELL.finditer(line):
        yield line[found.start() :].split(), line[found.start() :]
    for command in read.commands:
        words = command.words
        end = words[-1].end
        runner = UNKNOWN in words[0].text or program_name(words[0].text) in _RUNNERS
        for word in words if runner else words[:1]:
            at = words.index(word)
            texts = [one.text for one in words[at:]]
            text = data[word.start : end].decode("utf-8", "replace")
            yield texts, text
            plain = program_name(texts[0])
            if plain != texts[0]:
                yield [plain, *texts[1:]], " ".join([plain, *texts[1:]])


# What may stand in a line whose commands are allowed one by one; any other redirection or expansion is more than they.
_HARMLESS = re.compile(r"(?:[12]|&)?>>?[ \t]*/dev/null|[12]>&[12]")
_MORE = re.compile(r"[<>`]|\$\(|\$\{|\(\)")


def _not_allowed(read: Line, line: str, allow: Sequence[Rule]) -> Iterator[str]:
    if _MORE.search(_HARMLESS.sub(" ", line)):
        yield "the line redirects or expands something that no rule speaks of"
    if _SHELL.search(line):
        yield "the line gives text to a shell"
    data = line.encode("utf-8")
    for command in read.commands:
        words = [word.text for word in command.words]
        text = data[command.words[0].start : command.words[-1].end].decode("utf-8", "replace")
        if command.assignments:
            yield f"{text[:80]!r} sets variables"
        if any(UNKNOWN in word for word in words):
            yield f"{text[:80]!r} is not known before the shell expands it"
        text = _HARMLESS.sub("", text).strip()
        if not any(rule.allows(words, text) for rule in allow) and not _only_looks(words):
            yield f"no rule allows {text[:80]!r}"


_FILTERS = frozenset({"cat", "head", "tail", "wc", "sort", "uniq", "true", "false"})
_COUNT = re.compile(r"-(?:n|c)?[+-]?[0-9]+\Z|-[nclwmurb]+\Z|[+]?[0-9]+\Z")
_GREP = re.compile(r"-[EFivwxcnqo]+\Z")


def _only_looks(words: Sequence[str]) -> bool:
    """A filter of its own input, an echo, a step into a directory below: what every harness lets pass unasked."""
    name, rest = words[0], words[1:]
    if name in _FILTERS:
        return all(_COUNT.match(word) for word in rest)
    if name == "grep":
        operands = [word for word in rest if not _GREP.match(word)]
        return len(operands) == 1 and not operands[0].startswith("-")
    if name == "echo":
        return True
    if name == "cd":
        return (
            len(rest) == 1
            and bool(re.fullmatch(r"(?!-)[A-Za-z0-9_.@+-]+(?:/[A-Za-z0-9_.@+-]+)*/?", rest[0]))
            and (".." not in rest[0].split("/"))
        )
    return False


def merged(parts: Iterable[Rules]) -> Rules:
    """All of them at once."""
    found = Rules()
    for part in parts:
        found = Rules(
            found.allow + part.allow,
            found.hold + part.hold,
            found.everything or part.everything,
            found.unsure or part.unsure,
        )
    return found
