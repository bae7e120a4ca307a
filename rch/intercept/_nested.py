"""The text that a shell is given inside a line: ``bash -c '…'`` and quoted here-documents. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from tree_sitter import Node

from rch.intercept._words import SimpleCommand, Text, quoted_letters, raw
from rch.intercept.wordlist import SHELLS
from rch.intercept.wrapper import program_name, unwrap
from rch.toolchains.option import UNKNOWN


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
        return _here_document(behind, text) if unwrapped.at + 1 == len(words) else None
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
            if word not in ("--login", "--norc", "--noprofile", "--posix"):
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


def _here_document(behind: Sequence[Node], text: Text) -> Text | None:
    """The body that a shell without operands reads from stdin, when its delimiter is quoted."""
    for redirect in behind:
        if redirect.type != "heredoc_redirect":
            continue
        start = next((child for child in redirect.children if child.type == "heredoc_start"), None)
        body = next((child for child in redirect.children if child.type == "heredoc_body"), None)
        if start is None or body is None or raw(start, text)[:1] not in ("'", '"', "\\"):
            return None
        return _slice(text, body.start_byte, body.end_byte)
    return None
