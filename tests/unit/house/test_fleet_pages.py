"""docs/fleet.md, troubleshooting.md, performance-tuning.md: made from the code where they can be, true where not."""

import ast
import re
from pathlib import Path

import pytest

from rch.cli.document import commands
from rch.config.keys import row_of, split_dotted
from rch.fleet.document import EFFECTS, renewed
from rch.fleet.variables import VARIABLES

TOP = Path(__file__).parents[3]
PAGES = ["docs/fleet.md", "docs/troubleshooting.md", "docs/performance-tuning.md"]


def test_the_variables_are_those_of_the_schema():
    text = (TOP / "docs/fleet.md").read_text()
    assert set(EFFECTS) == set(VARIABLES)
    assert renewed(text) == text, "python -m rch.fleet.document"
    for name in VARIABLES:
        assert f"| `{name}` |" in text


@pytest.mark.parametrize("page", PAGES)
class TestAPage:
    def test_links_to_what_is_there(self, page):
        for target in re.findall(r"\]\(([^)#:]+)\)", (TOP / page).read_text()):
            assert (TOP / page).parent.joinpath(target).exists(), target

    def test_names_commands_that_exist(self, page):
        text = (TOP / page).read_text()
        known = {name for name, _ in commands()} | {"rch exec"}
        for words in re.findall(r"(?:^|[`(]|    )(rch [a-z]+(?: [a-z]+)?)", text, re.MULTILINE):
            assert words in known or words.rsplit(" ", 1)[0] in known, words

    def test_names_keys_that_exist(self, page):
        for key in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?: = [^`]*)?`", (TOP / page).read_text()):
            if key.endswith((".yml", ".toml", ".fleet.site", ".md", ".ssh", ".cfg")):
                continue
            path = split_dotted(key)
            assert path is not None and row_of(path) is not None, key


def names_of_checks() -> set[str]:
    """The names that rch doctor gives its findings: the last word of "worker:css:clock"."""
    found = set()
    for file in (TOP / "rch/cli").glob("checks_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            if node.func.id not in ("ok", "warn", "fail"):
                continue
            first = node.args[0]
            if isinstance(first, ast.JoinedStr):
                words = [part.value for part in first.values if isinstance(part, ast.Constant)]
                found |= {part for word in words for part in word.split(":") if part}
            elif isinstance(first, ast.Constant):
                found.add(first.value)
    return found


def test_every_check_of_doctor_is_on_the_page():
    text = (TOP / "docs/troubleshooting.md").read_text()
    names = names_of_checks()
    assert {"capacity", "transfer", "clock", "sandbox", "undelivered"} <= names  # the search finds something
    for name in names | {"key", "host-key", "rch-wkr", "unreachable", "rsync"}:
        assert f"`{name}`" in text, name
