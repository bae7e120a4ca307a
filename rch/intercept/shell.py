"""The simple commands of a shell line, with their byte ranges, from a real grammar (tree-sitter-bash). No I/O.

Unparsable or unsure is said, never guessed: a line has ``trouble`` when nothing in it can be trusted, a command has
``doubt`` when where it stands or what it is leaves room for error. Whoever reads this keeps such commands local.

The grammar's known slips that are put right or turned into doubt here (0.25.1):
* words behind a redirection (``make 2>&1 install``) appear as further targets of the redirection;
* ``time { …; }`` and ``coproc { …; }`` are read as a command with an argument ``{``;
* a redirection behind ``a && b`` is hung on the whole list, though it belongs to ``b``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import tree_sitter_bash
from tree_sitter import Language, Node, Parser, Tree

from rch.intercept._nested import nested_text
from rch.intercept._words import WORDS, SimpleCommand, Text, Word, raw, value_of, word
from rch.intercept.wrapper import ASSIGNMENT, program_name, unwrap
from rch.toolchains.option import UNKNOWN, word_set

MAX_BYTES = 64 * 1024
"""Longer lines are local without parsing; agents' lines with a whole file in a here-document stay below this."""

_MAX_COMMANDS = 2000
_MAX_PIPES = 2000  # "make|make|…|" ends in an error whose handling is quadratic and cannot be interrupted
_MAX_SHELLS = 3  # bash -c "bash -c '…'"
_PARSE_CPU_S = 0.1  # a 64 KiB line of ordinary text takes 0.01; "a=(a=(…" would take 18
_CONTROL = bytes(set(range(32)) - {9, 10}) + b"\x7f"  # the grammar takes \r \f \v for blanks, bash does not

_ASCII = bytes(range(128)) + b"." * 128
"""The grammar looks letters up in C's tables of 256 and crashes beyond their end, at ``{`` before a rare letter. To
bash a byte above 127 is part of a word and never of a name, as a dot is; offsets stay what they are."""
_ENDS = re.compile(rb"<<(?!<)(?!-?[ \t]*(?:'[A-Za-z0-9_]+'|\"[A-Za-z0-9_]+\"|\\?[A-Za-z0-9_]+)(?=[\s;&|()<>]|$))")
"""A here-document whose end is not a plain word: two such ends could look alike once their letters are dots."""

_BARE = re.compile(rb"[A-Za-z0-9_./:@,+-]+(?: [A-Za-z0-9_./:@,+-]+){0,99}")
_RESERVED = word_set("{ } ! [[ ]] if then else elif fi for while until do done case esac in select function")


@dataclass(frozen=True)
class Line:
    """A line taken apart: its simple commands in order, or the reason why nothing about it is certain."""

    commands: tuple[SimpleCommand, ...] = ()
    trouble: str = ""


@dataclass
class _Found:
    commands: list[SimpleCommand] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)  # functions and aliases that hide a program
    path_lost: bool = False  # PATH was set without the old one, so "rch" may not be found
    moves: tuple[str, ...] = ()


def read_line(data: bytes) -> Line:
    """Take *data* (UTF-8) apart. Never raises; bounded time for any input."""
    if _BARE.fullmatch(data):
        return _bare(data)
    trouble = _refusal(data)
    if trouble:
        return Line(trouble=trouble)
    found = _Found()
    trouble = _read(Text(data), found, 0)
    if trouble:
        return Line(trouble=trouble)
    commands = sorted(found.commands, key=lambda command: command.words[0].start)
    return Line(tuple(_settle(command, found) for command in commands))


def _bare(data: bytes) -> Line:
    """A line of words and single blanks: no grammar can read it in two ways, so none is asked (tier 0 in 0.01 ms)."""
    words = []
    at = 0
    for text in data.decode("ascii").split(" "):
        words.append(Word(text, at, at + len(text)))
        at += len(text) + 1
    if words[0].text in _RESERVED:
        return Line(trouble=f"{words[0].text} stands where a command should")
    return Line((SimpleCommand(tuple(words), {}, plain=words[0].text != "coproc"),))


def _refusal(data: bytes) -> str:
    """Why *data* is not even parsed, or ""."""
    if len(data) > MAX_BYTES:
        return f"the line is longer than {MAX_BYTES // 1024} KiB"
    if data.count(b"|") > _MAX_PIPES:
        return f"the line has more than {_MAX_PIPES} pipes"
    if data.translate(None, _CONTROL) != data:
        return "the line has control characters"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "the line is not UTF-8"
    if not text.isascii():
        if any(letter.isspace() for letter in text if letter > "\x7f"):
            return "the line has blanks outside ASCII"
        if _ENDS.search(data.replace(b"<<<", b"   ")):
            return "the line has letters outside ASCII and a here-document with an unusual end"
    return ""


@cache
def _language() -> Language:
    return Language(tree_sitter_bash.language())


def _parse(data: bytes) -> Tree | None:
    """The tree of *data*, None when parsing takes too long. CPU time, so that a busy machine changes no verdict."""
    data = data.translate(_ASCII)
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


def _read(text: Text, found: _Found, shells: int) -> str:
    """Add the commands of *text* to *found*; the trouble with it, or ""."""
    tree = _parse(text.data)
    if tree is None:
        return "the line takes too long to parse"
    root = tree.root_node
    if root.has_error:
        return "the line is no shell syntax that rch understands"
    plain = _plain_command(root) if shells == 0 else None
    for node, doubt, behind in _commands(root, found, text):
        if len(found.commands) >= _MAX_COMMANDS:
            return f"the line has more than {_MAX_COMMANDS} commands"
        command = _command(node, behind, text, doubt=doubt, plain=node == plain, moves=found.moves)
        if command is None:
            continue
        first = command.words[0]
        if first.text in _RESERVED and first.node is not None and first.node.type == "word":
            return f"{first.text} stands where a command should"
        nested = nested_text(command, behind, text)
        if nested is not None and shells < _MAX_SHELLS and not command.doubt:
            inner = _Found(defined=found.defined, moves=found.moves)
            if not _read(nested, inner, shells + 1) and inner.commands:
                found.commands.extend(inner.commands)
                found.path_lost = found.path_lost or inner.path_lost
                continue
        found.commands.append(command)
        name = program_name(command.words[0].text)
        if name in ("cd", "pushd", "popd"):
            found.moves = (*found.moves, _destination(command))
        if name == "alias":
            found.defined.update(word.text.partition("=")[0] for word in command.words[1:])
    return ""


def _destination(command: SimpleCommand) -> str:
    """Where ``cd`` goes, if the line says it."""
    operands = [word.text for word in command.words[1:] if word.text not in ("-P", "-L", "-e", "--")]
    if len(operands) != 1 or not operands[0] or operands[0][0] in "-+~" or command.words[0].text == "popd":
        return UNKNOWN
    return operands[0]


def _commands(root: Node, found: _Found, text: Text) -> Iterator[tuple[Node, str, tuple[Node, ...]]]:
    """Every ``command`` node below *root* in the order of the text, with the doubt its surroundings cast on it and the
    redirections that the grammar hung on a statement around it, though they are its own."""
    stack: list[tuple[Node, str, tuple[Node, ...]]] = [(root, "", ())]
    while stack:
        node, doubt, behind = stack.pop()
        kind = node.type
        if kind == "command":
            yield node, doubt, behind
        elif kind == "heredoc_body":
            doubt = "it stands in a here-document"
        elif kind == "command_substitution" and text.data[node.start_byte : node.start_byte + 1] == b"`":
            if b"\\" in text.data[node.start_byte : node.end_byte]:
                doubt = "it stands between backquotes with escapes"
        elif kind == "function_definition":
            name = node.child_by_field_name("name")
            if name is not None:
                found.defined.add(raw(name, text))
        elif kind == "variable_assignment":
            found.path_lost = found.path_lost or _loses_path(raw(node, text))
        children = node.children
        own: Node | None = None  # the child that ends in the command to which *behind* belongs
        if kind == "redirected_statement" and children:
            own = children[0]
            behind = (*(child for child in children if child.type.endswith("_redirect")), *behind)
        elif kind in ("list", "pipeline", "negated_command") and children:
            own = children[-1]
        stack.extend(
            (child, doubt, behind if child is own else ()) for child in reversed(children) if child.child_count
        )


def _plain_command(root: Node) -> Node | None:
    """The one command that ``strict`` may offload: the line itself, or what stands before the first ``&&``."""
    statements = [child for child in root.children if child.type != "comment"]
    if len(statements) != 1:  # ";" and "&" are children too
        return None
    node = statements[0]
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


def _command(
    node: Node, behind: Sequence[Node], text: Text, *, doubt: str, plain: bool, moves: tuple[str, ...]
) -> SimpleCommand | None:
    """The words of a ``command`` node, those behind its redirections included; None for one without words."""
    words: list[Word] = []
    assignments: dict[str, str] = {}
    for part in (*node.children, *behind):
        kind = part.type
        if kind == "variable_assignment":
            name, _, _ = raw(part, text).partition("=")
            value = part.child_by_field_name("value")
            assignments[name.rstrip("+")] = "" if value is None else value_of(value, text)
        elif kind == "file_redirect":
            words.extend(word(extra, text) for extra in _behind_target(part))
        elif kind == "heredoc_redirect":
            for child in part.children:
                if child.type == "file_redirect":
                    words.extend(word(extra, text) for extra in _behind_target(child))
                elif child.type in WORDS:
                    words.append(word(child, text))
        elif kind == "herestring_redirect":
            continue
        elif kind == "command_name":
            words.append(word(part.children[0] if part.child_count == 1 else part, text))
        elif kind in WORDS:
            words.append(word(part, text))
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
    return SimpleCommand(tuple(words), assignments, doubt, plain and words[0].text != "coproc", moves)


def _behind_target(redirect: Node) -> list[Node]:
    """What stands behind the target of a redirection: words of the command."""
    return [child for child in redirect.children if child.type in WORDS][1:]


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
