"""The text that a shell is given inside a line: ``bash -c '…'`` and quoted here-documents. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from tree_sitter import Node

from rch.intercept._words import SimpleCommand, Text, quoted_letters, raw
from rch.intercept.wordlist import SHELLS
from rch.intercept.wrapper import program_name, unwrap
from rch.toolchains.option import UNKNOWN

_LONG = ("--login", "--norc", "--noprofile", "--posix")


def nested_text(command: SimpleCommand, behind: Sequence[Node], text: Text) -> Text | None:
    """The text a shell is given with ``-c`` or as a quoted here-document, if each byte's place in the line is known."""
    words = command.words
    texts = [word.text for word in words]
    unwrapped = unwrap(texts)
    if unwrapped.keeps or unwrapped.unsure or unwrapped.at >= len(words):
        return None
    if program_name(texts[unwrapped.at]) not in SHELLS:
        return None
    at = _command_string(texts, unwrapped.at + 1)
    if at is None:
        return _here_document(behind, text) if _reads_stdin(texts[unwrapped.at + 1 :]) else None
    quoted = words[at].node
    if quoted is None:
        return None
    if quoted.type == "raw_string":
        return _slice(text, quoted.start_byte + 1, quoted.end_byte - 1)
    if quoted.type != "string" or any(child.type not in ("string_content", '"') for child in quoted.children):
        return None
    inside = raw(quoted, text)[1:-1]
    if "\\" not in inside:
        return _slice(text, quoted.start_byte + 1, quoted.end_byte - 1)
    data = bytearray()
    places: list[int] = []
    start = quoted.start_byte + 1
    offset, seen = 0, 0
    for letter, began in quoted_letters(inside):
        offset += len(inside[seen:began].encode())
        seen = began
        encoded = letter.encode()
        data.extend(encoded)
        places.extend(text.place(start + offset + (i if inside[began] == letter else 0)) for i in range(len(encoded)))
    places.append(text.place(quoted.end_byte - 1))
    return Text(bytes(data), 0, tuple(places)) if data else None


def _slice(text: Text, start: int, end: int) -> Text:
    places = None if text.places is None else text.places[start : end + 1]
    return Text(text.data[start:end], text.base + start, places)


def _command_string(texts: Sequence[str], at: int) -> int | None:
    """Index of the word that a shell's ``-c`` runs; None without ``-c`` or when its options are not certain."""
    commanded = False
    while at < len(texts):
        word = texts[at]
        if word.startswith("--") and len(word) > 2:
            if word not in _LONG:
                return None
        elif word == "--":
            return at + 1 if commanded and at + 1 < len(texts) else None
        elif word[:1] in "-+" and len(word) > 1 and UNKNOWN not in word:
            commanded = commanded or ("c" in word and word[0] == "-")
            at += word.count("o") + word.count("O")
        else:
            return at if commanded else None
        at += 1
    return None


def _reads_stdin(options: Sequence[str]) -> bool:
    """Does a shell with these words run what it reads? ``bash``, ``bash -e``, ``bash -s -- x``; not ``bash file``."""
    at = 0
    asked = False
    while at < len(options):
        word = options[at]
        if word not in _LONG:
            if word[:1] not in ("-", "+") or not word[1:].isalpha():
                return asked
            if set(word) & set("cn"):
                return False
            asked = asked or ("s" in word and word[0] == "-")
            at += word.count("o") + word.count("O")
        at += 1
    return True


def _here_document(behind: Sequence[Node], text: Text) -> Text | None:
    """The body that a shell reads from stdin, when its delimiter is quoted."""
    for redirect in behind:
        if redirect.type != "heredoc_redirect":
            continue
        start = next((child for child in redirect.children if child.type == "heredoc_start"), None)
        body = next((child for child in redirect.children if child.type == "heredoc_body"), None)
        if start is None or body is None or raw(start, text)[:1] not in ("'", '"', "\\"):
            return None
        return _slice(text, body.start_byte, body.end_byte)
    return None
