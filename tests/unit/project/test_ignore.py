"""Our gitignore against git's."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rch.project.ignore import Patterns


def excluded(patterns: Patterns, path: str) -> bool:
    """As a walk decides: an excluded directory takes everything below it along."""
    parts = path.split("/")
    for count in range(1, len(parts)):
        if patterns.verdict("/".join(parts[:count]), is_dir=True):
            return True
    return patterns.verdict(path, is_dir=False) is True


def git_says(top: Path, lines: list[str], paths: list[str]) -> set[str]:
    (top / "rules").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape") + b"\n")
    given = b"\0".join(os.fsencode(path) for path in paths) + b"\0"
    done = subprocess.run(
        ["git", "-c", "core.excludesFile=rules", "check-ignore", "-z", "--no-index", "--stdin"],
        cwd=top,
        input=given,
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return {os.fsdecode(path) for path in done.stdout.split(b"\0") if path}


@pytest.fixture(scope="module")
def git_top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("ignore")
    subprocess.run(["git", "init", "-q", str(top)], check=True)
    return top


CASES = [
    (["*.o"], "a.o", True),
    (["*.o"], "x/a.o", True),
    (["*.o", "!keep.o"], "x/keep.o", False),
    (["/target"], "target/x", True),
    (["/target"], "sub/target/x", False),
    (["target/"], "sub/target/x", True),
    (["target/"], "sub/target", False),
    (["a/*.txt"], "a/b.txt", True),
    (["a/*.txt"], "a/c/b.txt", False),
    (["a/**/b"], "a/x/y/b", True),
    (["a/**/b"], "a/b", True),
    (["**/logs"], "x/logs/y", True),
    (["a/**"], "a/x/y", True),
    (["a/**"], "a", False),
    (["foo[0-9].c"], "foo3.c", True),
    (["foo[!0-9].c"], "foo3.c", False),
    (["[[:upper:]]*"], "README", True),
    (["\\#x"], "#x", True),
    (["# x"], "# x", False),
    (["\\!x"], "!x", True),
    (["trail "], "trail", True),
    (["trail\\ "], "trail ", True),
    (["*.log\r"], "a.log", True),
    (["dir/", "!dir/keep"], "dir/keep", True),
    (["*", "!*.c", "!*/"], "a/b.c", False),
    (["*", "!*.c", "!*/"], "a/b.h", True),
    (["a\\*b"], "a*b", True),
    (["a\\*b"], "axb", False),
    (["[a-"], "[a-", False),
    (["x[]]"], "x]", True),
    (["?"], "é", False),
    (["\udcff*"], "\udcff.c", True),
]


class TestPatterns:
    @pytest.mark.parametrize(("lines", "path", "out"), CASES)
    def test_decide_as_the_manual_of_gitignore_says(self, git_top, lines, path, out):
        assert excluded(Patterns(lines), path) is out
        assert (path in git_says(git_top, lines, [path])) is out

    _name = st.text(alphabet="ab.é-]", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
    _path = st.lists(_name, min_size=1, max_size=4).map("/".join)
    _line = st.text(alphabet="ab.*?[]!-/\\ #é^:", min_size=1, max_size=9)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(lines=st.lists(_line, min_size=1, max_size=4), paths=st.lists(_path, min_size=1, max_size=12, unique=True))
    def test_agree_with_git_on_anything(self, git_top, lines, paths):
        patterns = Patterns(lines)
        assert {path for path in paths if excluded(patterns, path)} == git_says(git_top, lines, paths)


class TestAPatternOfManyWildcards:
    """A repository brings its own patterns, and the matcher holds the interpreter while it thinks."""

    @pytest.mark.parametrize(
        ("line", "path"),
        [
            ("*a" * 24 + "b", "a" * 250),
            ("**/a/" * 24 + "b", "a/" * 1000 + "c"),
            ("**/*a*a*/" * 12 + "b", "aaaa/" * 400 + "c"),
        ],
    )
    def test_is_told_from_a_path_at_once(self, line, path):
        started = time.process_time()
        assert Patterns([line]).verdict(path, is_dir=False) is None
        assert time.process_time() - started < 10  # 24 nested searches would take longer than anybody lives

    @pytest.mark.parametrize(
        ("line", "path", "excluded"),
        [
            ("*a*b", "xaxab", True), ("*a*b*c", "abacbc", True), ("*ab*ab", "abab", True), ("*ab*ab", "aab", False),
            ("*a/b*c", "xa/bc", True), ("*a/b*c", "xa/ya/bc", False), ("/**/a/**/b", "a/x/a/b", True),
            ("**/a/**/a/b", "a/a/b", True), ("**/a/**/a/b", "a/b", False), ("**/*x*y/**/z", "q/axby/k/z", True),
            ("**/*x*y/**/z", "q/axb/z", False), ("a*/**/*b", "a1/2/3b", True), ("*[ab]*[bc]", "xbxc", True),
        ],
    )  # fmt: skip
    def test_says_what_it_always_said(self, line, path, excluded):
        assert bool(Patterns([line]).verdict(path, is_dir=False)) is excluded
