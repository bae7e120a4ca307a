"""The simple commands of a shell line, with their byte ranges, from a real grammar (tree-sitter-bash). No I/O.

Unparsable or unsure is said, never guessed: a line has ``trouble`` when nothing in it can be trusted, a command has
``doubt`` when where it stands or what it is leaves room for error. Whoever reads this keeps such commands local.

The grammar's known slips that are put right or turned into doubt here (0.25.1):
* words behind a redirection (``make 2>&1 install``) appear as further targets of the redirection;
* ``time { …; }`` and ``coproc { …; }`` are read as a command with an argument ``{``;
* a redirection behind ``a && b`` is hung on the whole list, though it belongs to ``b``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import tree_sitter_bash
from tree_sitter import Language, Node, Parser, Tree

from rch.intercept.wordlist import SHELLS
from rch.intercept.wrapper import ASSIGNMENT, program_name, unwrap
from rch.toolchains.option import UNKNOWN, word_set

MAX_BYTES = 64 * 1024
"""Longer lines are local without parsing; agents' lines with a whole file in a here-document stay below this."""

_MAX_DEPTH = 100  # open brackets; people nest three deep, hostile lines ten thousand
_MAX_COMMANDS = 2000
_MAX_SHELLS = 3  # bash -c "bash -c '…'"
_PARSE_CPU_S = 0.1  # a 64 KiB line of ordinary text takes 0.01; "a=(a=(…" would take 18
_CONTROL = bytes(set(range(32)) - {9, 10}) + b"\x7f"  # the grammar takes \r \f \v for blanks, bash does not

_RESERVED = word_set("{ } ! [[ ]] if then else elif fi for while until do done case esac in select function")


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
    moved:       the line has changed the directory before.
    """

    words: tuple[Word, ...]
    assignments: Mapping[str, str]
    doubt: str = ""
    plain: bool = False
    moved: bool = False


@dataclass(frozen=True)
class Line:
    """A line taken apart: its simple commands in order, or the reason why nothing about it is certain."""

    commands: tuple[SimpleCommand, ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class _Text:
    """Shell text and where each of its bytes lies in the line: at ``base`` + i, or at ``places[i]`` (which has one more)."""

    data: bytes
    base: int = 0
    places: tuple[int, ...] | None = None

    def place(self, at: int) -> int:
        return self.base + at if self.places is None else self.places[at]


@dataclass
class _Found:
    commands: list[SimpleCommand] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)  # functions and aliases that hide a program
    path_lost: bool = False  # PATH was set without the old one, so "rch" may not be found
    moved: bool = False


def read_line(data: bytes) -> Line:
    """Take *data* (UTF-8) apart. Never raises; bounded time for any input."""
    trouble = _refusal(data)
    if trouble:
        return Line(trouble=trouble)
    found = _Found()
    trouble = _read(_Text(data), found, 0)
    if trouble:
        return Line(trouble=trouble)
    commands = sorted(found.commands, key=lambda command: command.words[0].start)
    return Line(tuple(_settle(command, found) for command in commands))


def _refusal(data: bytes) -> str:
    """Why *data* is not even parsed, or ""."""
    if len(data) > MAX_BYTES:
        return f"the line is longer than {MAX_BYTES // 1024} KiB"
    if data.translate(None, _CONTROL) != data:
        return "the line has control characters"
    depth = deepest = 0
    for byte in data if data.count(b"(") + data.count(b"{") > _MAX_DEPTH else b"":
        if byte in b"({":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b")}":
            depth -= 1
    if deepest > _MAX_DEPTH:
        return f"the line nests deeper than {_MAX_DEPTH}"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "the line is not UTF-8"
    if not text.isascii() and any(letter.isspace() for letter in text if letter > "\x7f"):
        return "the line has blanks outside ASCII"
    return ""


@cache
def _language() -> Language:
    return Language(tree_sitter_bash.language())


def _parse(data: bytes) -> Tree | None:
    """The tree of *data*, None when parsing takes too long. CPU time, so that a busy machine changes no verdict."""
    if len(data) <= 1024:
        return Parser(_language()).parse(data)
    limit = time.thread_time() + _PARSE_CPU_S
    try:
        return Parser(_language()).parse(
            lambda offset, _point: data[offset : offset + MAX_BYTES],
            encoding="utf8",
            progress_callback=lambda _offset, _error: time.thread_time() > limit,
        )
    except ValueError:
        return None


def _read(text: _Text, found: _Found, shells: int) -> str:
    """Add the commands of *text* to *found*; the trouble with it, or ""."""
    tree = _parse(text.data)
    if tree is None:
        return "the line takes too long to parse"
    root = tree.root_node
    if root.has_error:
        return "the line is no shell syntax that rch understands"
    plain = _plain_command(root) if shells == 0 else None
    for node, doubt in _commands(root, found, text):
        if len(found.commands) >= _MAX_COMMANDS:
            return f"the line has more than {_MAX_COMMANDS} commands"
        command = _command(node, text)
        if command is None:
            continue
        if command.words[0].text in _RESERVED and text.data[command.words[0].start - text.base :][:1] != b"'":
            return f"{command.words[0].text} stands where a command should"
        command = replace(
            command,
            doubt=doubt or command.doubt,
            plain=node == plain and command.words[0].text != "coproc",
            moved=found.moved,
        )
        nested = _nested_text(command, node, text)
        if nested is not None and shells < _MAX_SHELLS and not command.doubt:
            inner = _Found(defined=found.defined, moved=found.moved)
            if not _read(nested, inner, shells + 1) and inner.commands:
                found.commands.extend(inner.commands)
                found.path_lost = found.path_lost or inner.path_lost
                continue
        found.commands.append(command)
        name = program_name(command.words[0].text)
        if name in ("cd", "pushd", "popd"):
            found.moved = True
        if name == "alias":
            found.defined.update(word.text.partition("=")[0] for word in command.words[1:])
    return ""


def _commands(root: Node, found: _Found, text: _Text) -> Iterator[tuple[Node, str]]:
    """Every ``command`` node below *root* in the order of the text, and the doubt its surroundings cast on it."""
    stack: list[tuple[Node, str]] = [(root, "")]
    while stack:
        node, doubt = stack.pop()
        kind = node.type
        if kind == "command":
            yield node, doubt
        elif kind == "heredoc_body":
            doubt = "it stands in a here-document"
        elif kind == "command_substitution" and text.data[node.start_byte : node.start_byte + 1] == b"`":
            if b"\\" in text.data[node.start_byte : node.end_byte]:
                doubt = "it stands between backquotes with escapes"
        elif kind == "function_definition":
            name = node.child_by_field_name("name")
            if name is not None:
                found.defined.add(_raw(name, text))
        elif kind == "variable_assignment":
            found.path_lost = found.path_lost or _loses_path(_raw(node, text))
        stack.extend(
            (child, doubt) for child in reversed(node.children) if child.child_count or child.type == "command"
        )


def _plain_command(root: Node) -> Node | None:
    """The one command that ``strict`` may offload: the line itself, or what stands before the first ``&&``."""
    if root.named_child_count != 1 or any(child.type in ("&", ";") for child in root.children):
        return None
    node = root.named_children[0]
    chained = False
    while node.type == "list":
        operator = node.children[1].type if node.child_count > 1 else ""
        node = node.children[0]
        chained = operator == "&&" if node.type != "list" else chained
        if node.type != "list" and not chained:
            return None
    if node.type != "command":
        return None
    stack = [root]
    while stack:
        below = stack.pop()
        if below.type in _NOT_STRICT:
            return None
        stack.extend(below.children)
    return node


_NOT_STRICT = frozenset(
    {
        *("pipeline", "file_redirect", "heredoc_redirect", "herestring_redirect", "command_substitution"),
        *("process_substitution", "subshell", "redirected_statement"),
    }
)


def _command(node: Node, text: _Text) -> SimpleCommand | None:
    """The words of a ``command`` node, those behind its redirections included; None for one without words."""
    words: list[Word] = []
    assignments: dict[str, str] = {}
    doubt = ""
    parts = list(node.children)
    for part in (*parts, *_redirections_behind(node)):
        kind = part.type
        if kind == "variable_assignment":
            name, _, _ = _raw(part, text).partition("=")
            value = part.child_by_field_name("value")
            assignments[name.rstrip("+")] = "" if value is None else _value(value, text)
        elif kind == "file_redirect":
            words.extend(_word(extra, text) for extra in _behind_target(part))
        elif kind == "heredoc_redirect":
            for child in part.children:
                if child.type == "file_redirect":
                    words.extend(_word(extra, text) for extra in _behind_target(child))
                elif child.type in _WORDS:
                    words.append(_word(child, text))
        elif kind == "herestring_redirect":
            continue
        elif kind == "command_name":
            words.append(_word(part.children[0] if part.child_count == 1 else part, text))
        elif kind in _WORDS:
            words.append(_word(part, text))
        elif kind == "subshell":
            continue  # time ( … ): its commands are found below it
        else:
            doubt = f"rch does not know what {kind!r} means here"
    words.sort(key=lambda word: word.start)
    while words and (found := ASSIGNMENT.match(words[0].text)) and words[0].node is not None:
        # Behind a redirection the grammar takes an assignment for a word.
        assignments[found[1]] = found[2]
        words.pop(0)
    if not words:
        return None
    if any(word.text in ("{", "(") and word.end - word.start == 1 for word in words[1:3]):
        doubt = "a group behind this word is not understood"
    return SimpleCommand(tuple(words), assignments, doubt)


_WORDS = frozenset(
    {
        *("word", "number", "string", "raw_string", "ansi_c_string", "translated_string", "concatenation"),
        *("simple_expansion", "expansion", "command_substitution", "process_substitution", "arithmetic_expansion"),
        *("brace_expression", "regex", "extglob_pattern"),
    }
)


def _redirections_behind(node: Node) -> list[Node]:
    """Redirections that the grammar hung on the statement around *node*, if *node* is that statement's last command."""
    behind: list[Node] = []
    inner, outer = node, node.parent
    while outer is not None:
        if outer.type == "redirected_statement":
            behind.extend(child for child in outer.children if child.type.endswith("_redirect") and child != inner)
        elif outer.type not in ("list", "pipeline", "negated_command") or outer.children[-1] != inner:
            break
        inner, outer = outer, outer.parent
    return behind


def _behind_target(redirect: Node) -> list[Node]:
    """What stands behind the target of a redirection: words of the command."""
    return [child for child in redirect.children if child.type in _WORDS][1:]


def _raw(node: Node, text: _Text) -> str:
    return text.data[node.start_byte : node.end_byte].decode("utf-8")


def _word(node: Node, text: _Text) -> Word:
    value = _value(node, text)
    return Word(value, text.place(node.start_byte), text.place(node.end_byte), node)


def _value(node: Node, text: _Text) -> str:
    """What the shell makes of a word, as far as that is certain."""
    kind = node.type
    if kind in ("word", "number", "extglob_pattern"):
        return _unescape(_raw(node, text))
    if kind == "raw_string":
        return _raw(node, text)[1:-1]
    if kind == "string":
        return _double_quoted(node, text)
    if kind == "ansi_c_string":
        return _ansi(_raw(node, text)[2:-1])
    if kind == "simple_expansion" and _raw(node, text) == "$HOME":
        return "~"
    if kind == "concatenation" or (kind == "command_name" and node.child_count > 1):
        value = "".join(_value(child, text) for child in node.children)
        return UNKNOWN if _braces(node, text) else value
    if kind == "command_name" and node.child_count == 1:
        return _value(node.children[0], text)
    return UNKNOWN


def _ansi(raw: str) -> str:
    """What $'…' stands for, where it has none but the plainest escapes."""
    for escape, meant in (("\\n", "\n"), ("\\t", "\t"), ("\\'", "'"), ('\\"', '"')):
        raw = raw.replace(escape, meant)
    return UNKNOWN if "\\" in raw else raw


def _braces(node: Node, text: _Text) -> bool:
    """True for {a,b} and {1..3}: one word that becomes several."""
    inside = [_raw(child, text) for child in node.children if child.type == "word"]
    return "{" in "".join(inside) and ("," in "".join(inside) or ".." in "".join(inside))


def _double_quoted(node: Node, text: _Text) -> str:
    """The text between double quotes; the grammar has no nodes for blanks there, so the bytes are read."""
    parts: list[str] = []
    at = node.start_byte + 1
    for child in node.children:
        if child.type in ("string_content", '"') or child.start_byte < at:
            continue
        parts.append(_unescape_quoted(text.data[at : child.start_byte].decode("utf-8")))
        parts.append(_value(child, text))
        at = child.end_byte
    parts.append(_unescape_quoted(text.data[at : node.end_byte - 1].decode("utf-8")))
    return "".join(parts)


def _unescape(raw: str) -> str:
    if "\\" not in raw:
        return UNKNOWN if _plain_braces(raw) else raw
    letters = iter(raw)
    return "".join(
        "" if letter == "\\" and following == "\n" else following if letter == "\\" else letter
        for letter, following in ((letter, next(letters, "") if letter == "\\" else "") for letter in letters)
    )


def _plain_braces(raw: str) -> bool:
    return "{" in raw and "}" in raw and ("," in raw or ".." in raw)


def _unescape_quoted(raw: str) -> str:
    if "\\" not in raw:
        return raw
    return "".join(letter for letter, _at in _quoted_letters(raw))


def _quoted_letters(raw: str) -> Iterator[tuple[str, int]]:
    """The letters between double quotes after the shell has removed escapes, and where each began in *raw*."""
    at = 0
    while at < len(raw):
        letter = raw[at]
        if letter == "\\" and at + 1 < len(raw) and raw[at + 1] in '$`"\\\n':
            if raw[at + 1] != "\n":
                yield raw[at + 1], at
            at += 2
        else:
            yield letter, at
            at += 1


def _loses_path(assignment: str) -> bool:
    name, _, value = assignment.partition("=")
    return name in ("PATH", "path") and "$PATH" not in value and "${PATH" not in value


def _settle(command: SimpleCommand, found: _Found) -> SimpleCommand:
    """Add what only the whole line can tell."""
    if command.doubt:
        return command
    unwrapped = unwrap([word.text for word in command.words])
    name = program_name(command.words[unwrapped.at].text) if unwrapped.at < len(command.words) else ""
    if name in found.defined:
        return replace(command, doubt=f"the line defines {name} itself")
    if found.path_lost or _loses_path(f"PATH={unwrapped.assignments.get('PATH', '$PATH')}"):
        return replace(command, doubt="the line sets PATH without the old one")
    return command


def _nested_text(command: SimpleCommand, node: Node, text: _Text) -> _Text | None:
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
        return _here_document(node, text) if unwrapped.at + 1 == len(words) else None
    quoted = words[at].node
    if quoted is None:
        return None
    if quoted.type == "raw_string":
        return _slice(text, quoted.start_byte + 1, quoted.end_byte - 1)
    if quoted.type != "string" or any(child.type not in ("string_content", '"') for child in quoted.children):
        return None
    raw = _raw(quoted, text)[1:-1]
    if "\\" not in raw:
        return _slice(text, quoted.start_byte + 1, quoted.end_byte - 1)
    data = bytearray()
    places: list[int] = []
    start = quoted.start_byte + 1
    offset, seen = 0, 0
    for letter, began in _quoted_letters(raw):
        offset += len(raw[seen:began].encode())
        seen = began
        encoded = letter.encode()
        data.extend(encoded)
        places.extend(text.place(start + offset + (i if raw[began] == letter else 0)) for i in range(len(encoded)))
    places.append(text.place(quoted.end_byte - 1))
    return _Text(bytes(data), 0, tuple(places)) if data else None


def _slice(text: _Text, start: int, end: int) -> _Text:
    places = None if text.places is None else text.places[start : end + 1]
    return _Text(text.data[start:end], text.base + start, places)


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


def _here_document(node: Node, text: _Text) -> _Text | None:
    """The body that a shell without operands reads from stdin, when its delimiter is quoted."""
    for redirect in _redirections_behind(node):
        if redirect.type != "heredoc_redirect":
            continue
        start = next((child for child in redirect.children if child.type == "heredoc_start"), None)
        body = next((child for child in redirect.children if child.type == "heredoc_body"), None)
        if start is None or body is None or _raw(start, text)[:1] not in ("'", '"', "\\"):
            return None
        return _slice(text, body.start_byte, body.end_byte)
    return None
