"""The reasons for running here are a closed, documented list."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import rch
from rch.schedule.reasons import REASONS, meaning

_PROMISED = (
    "disabled bypass local-only on-worker not-a-build never-intercept excluded structure wrapper below-threshold "
    "unsupported-tool preflight-invalid-manifest preflight-missing-file preflight-invalid-target preflight-syntax-error "
    "preflight-missing-dependency too-quick not-worth-it no-candidate queue-timeout too-large hook-failed "
    "path-not-bindable path-not-proved output-outside-roots clock-skew toolchain-mismatch capability-missing disk-full "
    "unstable-snapshot unportable no-daemon bad-config bad-environment"
)


def test_c_08_has_every_promised_code() -> None:
    assert set(_PROMISED.split()) <= set(REASONS)


@pytest.mark.parametrize("code", REASONS)
def test_ux_01_each_code_says_in_a_sentence_what_it_means(code: str) -> None:
    assert code == code.lower().strip()
    assert meaning(code).endswith(".")
    assert meaning(code)[0].isupper() or meaning(code).startswith(("interception.", "rch"))


def test_ux_01_the_decision_gives_no_other_code() -> None:
    """Every constant reason in the sources of the decision is on the list."""
    root = Path(rch.__file__).parent
    given = set()
    for path in (*(root / "intercept").glob("*.py"), *(root / "toolchains").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            place = {"Stay": 0, "Judged": 2, "_whole": 2}.get(node.func.id)
            if place is not None and len(node.args) > place and isinstance(node.args[place], ast.Constant):
                given.add(node.args[place].value)
    assert len(given - {""}) >= 8
    assert given - {""} <= set(REASONS)


def test_ux_01_no_refusal_anywhere_has_another_code() -> None:
    given = set()
    for path in Path(rch.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "NotOffloadable":
                continue
            given.update(
                keyword.value.value
                for keyword in node.keywords
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
            )
    assert len(given) > 5
    assert given <= set(REASONS)
