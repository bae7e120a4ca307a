"""The documents say what is there."""

import re
from pathlib import Path

import pytest

from rch import errors

CHECKOUT = Path(__file__).parents[3]
PAGES = [
    *("README.md", "CONTRIBUTING.md", "AGENTS.md", "CHANGELOG.md"),
    *("docs/adr/README.md", "docs/security.md", "examples/README.md"),
]


@pytest.mark.parametrize("page", PAGES)
class TestAPage:
    def test_links_to_files_that_are_there(self, page):
        text = (CHECKOUT / page).read_text()
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (CHECKOUT / page).parent.joinpath(target).exists(), target

    def test_names_files_that_are_there(self, page):
        text = (CHECKOUT / page).read_text()
        for name in re.findall(r"`((?:rch|docs|tests|playbooks|examples|roles)/[A-Za-z0-9_/.-]+)`", text):
            assert (CHECKOUT / name).exists(), name

    def test_uses_only_verbs_and_options_that_dev_has(self, page):
        text = (CHECKOUT / page).read_text()
        dev = (CHECKOUT / "dev").read_text()
        for verb in re.findall(r"\./dev ([a-z]+)", text):
            assert re.search(rf"^  {verb}\)$", dev, re.MULTILINE), verb
        for option in re.findall(r"\./dev test (--[a-z]+)", text):
            assert f"{option})" in dev


class TestThePromisesOfSecurity:
    ROWS = re.findall(
        r"^\| (?!promise|who|---)(.+) \| (.+) \|$", (CHECKOUT / "docs/security.md").read_text(), re.MULTILINE
    )

    def test_are_each_guarded_by_a_test_that_is_there(self):
        guarded = [(promise, tests) for promise, tests in self.ROWS if "`tests/" in tests]
        assert len(guarded) > 10
        for promise, tests in guarded:
            named = re.findall(r"`(tests/[a-z_/.]+)` (Test[A-Za-z]+)", tests)
            assert named, promise
            for path, name in named:
                assert f"class {name}:" in (CHECKOUT / path).read_text(), f"{path} {name}"


class TestTheReadme:
    TEXT = (CHECKOUT / "README.md").read_text()

    def test_has_the_exit_statuses_of_the_errors(self):
        table = set(re.findall(r"^\| (\d+) \|", self.TEXT, re.MULTILINE))
        assert {
            str(errors.ProductsUnverified.exit_status),
            str(errors.NotOffloadable.exit_status),
            str(errors.UsageError.exit_status),
        } <= table

    def test_shows_a_transcript_of_all_six_steps(self):
        for number in range(1, 7):
            assert f"\n[{number}/6] " in self.TEXT

    def test_shows_no_path_of_the_machine_it_was_made_on(self):
        transcript = self.TEXT.split("```text")[1].split("```")[0]
        assert not re.search(r"\((?!~)/", transcript)


class TestTheDecisions:
    FILES = sorted(path.name for path in (CHECKOUT / "docs/adr").glob("[0-9]*.md"))

    def test_are_all_in_the_index(self):
        index = (CHECKOUT / "docs/adr/README.md").read_text()
        assert re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", index) == self.FILES

    @pytest.mark.parametrize("name", FILES)
    def test_answer_all_questions_of_the_template(self, name):
        def headings(text):
            return re.findall(r"^## (.*)$", text, re.MULTILINE)

        text = (CHECKOUT / "docs/adr" / name).read_text()
        assert headings(text) == headings((CHECKOUT / "docs/adr/template.md").read_text())
        assert text.startswith(f"# {name[:4]} ")
