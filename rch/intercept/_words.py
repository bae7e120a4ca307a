"""The words of a command: what the shell makes of each, as far as that is certain. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tree_sitter import Node

from rch.toolchains.option import UNKNOWN


@dataclass(frozen=True)
class Word:
    """One word: its text after the shell's quoting (unknown parts as UNKNOWN) and its byte range in the line."""

    text: str
    start: int
    end: int
    node: Node | None = None


@dataclass(frozen=True)
class SimpleCommand:
    """One simple command.

    words:       without leading assignments and redirections, never empty.
    assignments: the leading ones, values as far as known.
    doubt:       why nothing may be inserted here, or "".
    plain:       ``strict`` may offload it: the whole line, or the first segment before ``&&``.
    moves:       where the line has gone before, one ``cd`` after the other (UNKNOWN where it cannot be said).
    """

    words: tuple[Word, ...]
    assignments: Mapping[str, str]
    doubt: str = ""
    plain: bool = False
    moves: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """Shell text and where each of its bytes lies in the line: at ``base`` + i, or at ``places[i]``; its end too."""

    data: bytes
    base: int = 0
    places: tuple[int, ...] | None = None

    def place(self, at: int) -> int:
        return self.base + at if self.places is None else self.places[at]


WORDS = frozenset(
    {
        *("word", "number", "string", "raw_string", "ansi_c_string", "translated_string", "concatenation"),
        *("simple_expansion", "expansion", "command_substitution", "process_substitution", "arithmetic_expansion"),
        *("brace_expression", "regex", "extglob_pattern"),
    }
)


def raw(node: Node, text: Text) -> str:
    return text.data[node.start_byte : node.end_byte].decode("utf-8")


def word(node: Node, text: Text) -> Word:
    value = value_of(node, text)
    return Word(value, text.place(node.start_byte), text.place(node.end_byte), node)


def value_of(node: Node, text: Text) -> str:
    """What the shell makes of a word, as far as that is certain."""
    kind = node.type
    if kind in ("word", "number", "extglob_pattern"):
        return _unescape(raw(node, text))
    if kind == "raw_string":
        return raw(node, text)[1:-1]
    if kind == "string":
        return _double_quoted(node, text)
    if kind == "ansi_c_string":
        return _ansi(raw(node, text)[2:-1])
    if kind in ("simple_expansion", "expansion") and raw(node, text) in ("$HOME", "${HOME}"):
        return "~"
    if kind == "concatenation" or (kind == "command_name" and node.child_count > 1):
        bare = "".join(raw(child, text) for child in node.children if child.type == "word")
        return _expand_braces("".join(value_of(child, text) for child in node.children), bare)
    if kind == "command_name" and node.child_count == 1:
        return value_of(node.children[0], text)
    return UNKNOWN


def _ansi(letters: str) -> str:
    """What $'…' stands for, where it has none but the plainest escapes."""
    for escape, meant in (("\\n", "\n"), ("\\t", "\t"), ("\\'", "'"), ('\\"', '"')):
        letters = letters.replace(escape, meant)
    return UNKNOWN if "\\" in letters else letters


def _double_quoted(node: Node, text: Text) -> str:
    """The text between double quotes; the grammar has no nodes for blanks there, so the bytes are read."""
    parts: list[str] = []
    at = node.start_byte + 1
    for child in node.children:
        if child.type in ("string_content", '"') or child.start_byte < at:
            continue
        parts.append(_unescape_quoted(text.data[at : child.start_byte].decode("utf-8")))
        parts.append(value_of(child, text))
        at = child.end_byte
    parts.append(_unescape_quoted(text.data[at : node.end_byte - 1].decode("utf-8")))
    return "".join(parts)


def _unescape(quoted: str) -> str:
    if "\\" not in quoted:
        return _expand_braces(quoted, quoted)
    rest = iter(quoted)
    return "".join(
        "" if letter == "\\" and following == "\n" else following if letter == "\\" else letter
        for letter, following in ((letter, next(rest, "") if letter == "\\" else "") for letter in rest)
    )


_BRACES = re.compile(r"\{[^{}]*(?:,|\.\.)[^{}]*\}")


def _expand_braces(value: str, written: str) -> str:
    """{a,b}.c and x{1..3} become several words; what stands around the braces is in each of them."""
    return _BRACES.sub(UNKNOWN, value) if "{" in written else value


def _unescape_quoted(quoted: str) -> str:
    if "\\" not in quoted:
        return quoted
    return "".join(letter for letter, _at in quoted_letters(quoted))


def quoted_letters(quoted: str) -> Iterator[tuple[str, int]]:
    """The letters between double quotes after the shell has removed escapes, and where each began in *quoted*."""
    at = 0
    while at < len(quoted):
        letter = quoted[at]
        if letter == "\\" and at + 1 < len(quoted) and quoted[at + 1] in '$`"\\\n':
            if quoted[at + 1] != "\n":
                yield quoted[at + 1], at
            at += 2
        else:
            yield letter, at
            at += 1
