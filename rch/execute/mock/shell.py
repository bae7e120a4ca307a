"""The mock's little shell: enough to say what a job prints, writes, waits for and dies of.

Statements are separated by ``;``, ``&&`` or a newline. Programs: true false echo printf cat exit kill sleep mkdir rm mv
ln chmod touch env pwd tail (of /dev/zero: it grows until it is out of memory).

Redirections: ``> f``, ``>> f``, ``>&2``, ``< f``. ``$NAME``, ``$$`` and ``"$@"`` are known.
"""

from __future__ import annotations

import re
import shlex
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rch.execute.mock.tree import MockTree
from rch.worker.protocol import Entry


class Died(Exception):
    """The program was ended by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = int(number)  # as it would come over the wire


class OutOfMemory(Died):
    """The program grew beyond its limit."""

    def __init__(self) -> None:
        super().__init__(signal.SIGKILL)


class Exited(Exception):
    """``exit N``."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Process:
    """What a program of the mock can reach.

    out(stream, data): write to stdout (1) or stderr (2). stdin(): all of stdin, waits for its end.
    trees: (absolute path of the root, its tree). killed: set when a signal that cannot be ignored came.
    scripts: further programs, each a script of this shell.
    """

    env: Mapping[str, str]
    cwd: str
    trees: Sequence[tuple[str, MockTree]]
    out: Callable[[int, bytes], None]
    stdin: Callable[[], bytes]
    killed: threading.Event
    now_ns: Callable[[], int]
    scripts: Mapping[str, str] = field(default_factory=dict)

    def run(self, argv: Sequence[str]) -> int:
        """Exit code of *argv*; raises Died."""
        try:
            if argv[0] in ("sh", "bash", "/bin/sh") and len(argv) > 2 and argv[1] == "-c":
                return self._script(argv[2], list(argv[4:]))
            return self._program(list(argv), 1)
        except Exited as done:
            return done.code

    def _script(self, text: str, arguments: list[str]) -> int:
        status = 0
        for statement, joined in split_statements(text):
            if joined == "&&" and status != 0:
                continue
            words = self._expand(statement, arguments)
            if words:
                status = self._redirected(words)
        return status

    def _expand(self, statement: str, arguments: list[str]) -> list[str]:
        words: list[str] = []
        for raw in split_words(statement):
            if raw == '"$@"':
                words += arguments
                continue
            literal = raw.startswith("'")
            word = shlex.split(raw)[0] if raw not in (">", ">>", "<", ">&2") and shlex.split(raw) else raw
            if not literal:
                word = word.replace("$$", "0")
                word = re.sub(r"\$(\w+)", lambda m: self.env.get(m.group(1), ""), word)
            words.append(word)
        return words

    def _redirected(self, words: list[str]) -> int:
        stream, target, append, source = 1, "", False, ""
        plain: list[str] = []
        position = 0
        while position < len(words):
            word = words[position]
            if word == ">&2":
                stream = 2
            elif word in (">", ">>", "<"):
                position += 1
                if word == "<":
                    source = words[position]
                else:
                    target, append = words[position], word == ">>"
            else:
                plain.append(word)
            position += 1
        if not plain:
            if target:
                self._write(target, b"", append=append)
            return 0
        if not target and not source:
            return self._program(plain, stream)
        collected: list[bytes] = []
        inner = Process(
            self.env,
            self.cwd,
            self.trees,
            (lambda s, d: collected.append(d) if s == 1 else self.out(s, d)) if target else self.out,
            (lambda: self._read(source)) if source else self.stdin,
            self.killed,
            self.now_ns,
            self.scripts,
        )
        status = inner._program(plain, stream)
        if target:
            self._write(target, b"".join(collected), append=append)
        return status

    def _program(self, argv: list[str], stream: int) -> int:
        if self.killed.is_set():
            raise Died(signal.SIGTERM)
        name, arguments = argv[0].rsplit("/", 1)[-1], argv[1:]
        program = getattr(self, f"_run_{name}", None)
        if name in self.scripts:
            return self._script(self.scripts[name], arguments)
        if program is None:
            self.out(2, f"{name}: command not found\n".encode())
            return 127
        status = program(arguments, stream)
        return status if isinstance(status, int) else 0

    # -- programs -----------------------------------------------------------------------------------------------

    def _run_true(self, _: list[str], __: int) -> int:
        return 0

    def _run_false(self, _: list[str], __: int) -> int:
        return 1

    def _run_echo(self, words: list[str], stream: int) -> None:
        end = b"\n"
        if words and words[0] == "-n":
            words, end = words[1:], b""
        self.out(stream, " ".join(words).encode("utf-8", "surrogateescape") + end)

    def _run_printf(self, words: list[str], stream: int) -> None:
        template = unescape(words[0])
        values = [w.encode("utf-8", "surrogateescape") for w in words[1:]]
        if b"%s" not in template:
            self.out(stream, template)
            return
        for value in values or [b""]:
            self.out(stream, template.replace(b"%s", value, 1))

    def _run_cat(self, words: list[str], stream: int) -> int:
        for word in words or ["-"]:
            try:
                self.out(stream, self.stdin() if word == "-" else self._read(word))
            except KeyError:
                self.out(2, f"cat: {word}: No such file or directory\n".encode())
                return 1
        return 0

    def _run_exit(self, words: list[str], _: int) -> None:
        raise Exited(int(words[0]) if words else 0)

    def _run_kill(self, words: list[str], _: int) -> None:
        name = words[0].lstrip("-")
        raise Died(int(name) if name.isdigit() else signal.Signals[f"SIG{name}"].value)

    def _run_sleep(self, words: list[str], _: int) -> None:
        if self.killed.wait(float(words[0])):
            raise Died(signal.SIGTERM)

    def _run_tail(self, words: list[str], _: int) -> int:
        if words == ["/dev/zero"]:
            raise OutOfMemory
        return 1

    def _run_mkdir(self, words: list[str], _: int) -> None:
        for word in (w for w in words if not w.startswith("-")):
            tree, path = self._place(word)
            tree.put(Entry(path, "d", 0o755, 0, self.now_ns(), ""))

    def _run_rm(self, words: list[str], _: int) -> None:
        for word in (w for w in words if not w.startswith("-")):
            tree, path = self._place(word)
            tree.remove(path)

    def _run_mv(self, words: list[str], _: int) -> None:
        tree, old = self._place(words[-2])
        there, new = self._place(words[-1])
        entry, content = tree.entries[old], tree.contents.get(old, b"")
        tree.remove(old)
        there.put(entry._replace(path=new), content)

    def _run_ln(self, words: list[str], _: int) -> None:
        tree, path = self._place(words[-1])
        tree.put(Entry(path, "l", 0, 0, self.now_ns(), words[-2]))

    def _run_chmod(self, words: list[str], _: int) -> None:
        tree, path = self._place(words[1])
        tree.put(tree.entries[path]._replace(mode=int(words[0], 8)), tree.contents.get(path, b""))

    def _run_touch(self, words: list[str], _: int) -> None:
        tree, path = self._place(words[-1])
        tree.write(path, tree.contents.get(path, b""), self.now_ns())

    def _run_pwd(self, _: list[str], stream: int) -> None:
        self.out(stream, self.cwd.encode("utf-8", "surrogateescape") + b"\n")

    def _run_env(self, _: list[str], stream: int) -> None:
        self.out(stream, "".join(f"{k}={v}\n" for k, v in sorted(self.env.items())).encode("utf-8", "surrogateescape"))

    # -- files --------------------------------------------------------------------------------------------------

    def _place(self, word: str) -> tuple[MockTree, str]:
        absolute = word if word.startswith("/") else f"{self.cwd.rstrip('/')}/{word}"
        for root, tree in self.trees:
            if absolute.startswith(root.rstrip("/") + "/"):
                return tree, absolute[len(root.rstrip("/")) + 1 :]
        raise KeyError(word)

    def _read(self, word: str) -> bytes:
        tree, path = self._place(word)
        return tree.contents[path]

    def _write(self, word: str, content: bytes, *, append: bool) -> None:
        tree, path = self._place(word)
        old = tree.contents.get(path, b"") if append else b""
        tree.write(path, old + content, self.now_ns())


def split_statements(text: str) -> list[tuple[str, str]]:
    """``[(statement, the operator before it), …]``, quotes respected."""
    found: list[tuple[str, str]] = []
    current, operator, quote, position = "", ";", "", 0
    while position < len(text):
        char = text[position]
        if quote:
            quote = "" if char == quote else quote
            current += char
        elif char in "'\"":
            quote = char
            current += char
        elif text.startswith("&&", position):
            found.append((current.strip(), operator))
            current, operator = "", "&&"
            position += 1
        elif char in ";\n":
            found.append((current.strip(), operator))
            current, operator = "", ";"
        else:
            current += char
        position += 1
    found.append((current.strip(), operator))
    return [(s, o) for s, o in found if s]


def split_words(statement: str) -> list[str]:
    """Raw words, quotes kept, redirections as words of their own."""
    pattern = r""">&2|>>|>|<|(?:'[^']*'|"[^"]*"|[^\s<>'"])+"""
    return re.findall(pattern, statement)


def unescape(text: str) -> bytes:
    r"""``\n``, ``\t``, ``\\``, ``\0`` and ``\xNN`` of a printf format."""

    def replace(match: re.Match[bytes]) -> bytes:
        code = match.group(1)
        if code.startswith(b"x"):
            return bytes([int(code[1:], 16)])
        return {b"n": b"\n", b"t": b"\t", b"\\": b"\\", b"0": b"\0", b"r": b"\r"}[code]

    return re.sub(rb"\\(n|t|r|\\|0|x[0-9a-fA-F]{2})", replace, text.encode("utf-8", "surrogateescape"))
