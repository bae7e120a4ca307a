"""On which line a key stands."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rch.config.positions import key_lines, line_of

TEXT = '''# a comment with [brackets] and = signs
top = 1
[table.inner] # behind a header
"quoted.key" = """
[no.table]
b = 2
"""
dotted.key = [ 1, # ]
  {x = 1, y = "]"},
  "}", [
    2 ]
]
inline = {f = {g = 1}, 'h' = 'x}'}
literal = \'\'\'
c = 3
\'\'\'
after = "\\"]"

[[array]]
k = 2
[[array]]
k = 3
'''


class TestKeyLines:
    def test_finds_every_kind_of_key_and_is_not_led_astray_by_values(self) -> None:
        lines = key_lines(TEXT)
        tomllib.loads(TEXT)
        assert lines == {
            ("top",): 2,
            ("table",): 3,
            ("table", "inner"): 3,
            ("table", "inner", "quoted.key"): 4,
            ("table", "inner", "dotted"): 8,
            ("table", "inner", "dotted", "key"): 8,
            ("table", "inner", "dotted", "key", "x"): 9,
            ("table", "inner", "dotted", "key", "y"): 9,
            ("table", "inner", "inline"): 13,
            ("table", "inner", "inline", "f"): 13,
            ("table", "inner", "inline", "f", "g"): 13,
            ("table", "inner", "inline", "h"): 13,
            ("table", "inner", "literal"): 14,
            ("table", "inner", "after"): 17,
            ("array",): 19,
            ("array", "k"): 20,
        }

    def test_counts_windows_line_ends_once(self) -> None:
        assert key_lines("a = 1\r\n\r\nb = 2\r\n")[("b",)] == 3

    def test_falls_back_to_the_longest_known_part_and_to_the_first_line(self) -> None:
        lines = key_lines("x = 1\n[t]\n")
        assert line_of(lines, ("t", "missing", "deep")) == 2
        assert line_of(lines, ("nowhere",)) == 1

    @pytest.mark.parametrize(
        "value", ['""', "''", '"\\\\"', '"""a"""""', "'''a''''", "2020-01-01T00:00:00Z", "-1e3", "{}", "[]"]
    )
    def test_a_value_of_any_form_ends_where_it_ends(self, value: str) -> None:
        text = f"first = {value}\nsecond = 1\n"
        tomllib.loads(text)
        assert key_lines(text)[("second",)] == 2

    @given(
        st.recursive(
            st.one_of(st.integers(-10, 10), st.booleans(), st.text(max_size=8)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=4),
    )
    def test_finds_exactly_the_keys_that_tomllib_finds(self, value: Any, more: dict[str, str]) -> None:
        import tomlkit

        try:
            text = tomlkit.dumps({"head": value, "table": {"deep": more, "value": value}})
            table = tomllib.loads(text)
        except Exception:  # what tomlkit cannot write is not the subject
            return
        assert set(key_lines(text)) == set(_paths(table, ()))


def _paths(value: Any, path: tuple[str, ...]) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    if isinstance(value, dict):
        for name, inner in value.items():
            found |= {(*path, name)} | _paths(inner, (*path, name))
    if isinstance(value, list):
        for inner in value:
            found |= _paths(inner, path)
    return found
