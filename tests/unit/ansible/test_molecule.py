"""Every role has a scenario, and every scenario runs the steps that prove something."""

from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (CHECKOUT / "roles").iterdir())
SCENARIOS = sorted(path.parent for path in CHECKOUT.glob("molecule/*/molecule.yml"))

ELSEWHERE = {
    "system_packages": "molecule/controller",  # which is little but it
    **dict.fromkeys(
        ("toolchain_copy", "toolchain_cpp", "toolchain_rust", "toolchain_go", "toolchain_node", "compiler_cache"),
        "molecule/toolchains",
    ),
}
"""Roles without a scenario of their own: where they meet a real machine."""


def load(path):
    return yaml.safe_load(path.read_text()) or {}


@pytest.fixture(scope="module")
def shared():
    return load(CHECKOUT / ".config" / "molecule" / "config.yml")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_a_scenario_or_is_met_in_another(role):
    place = CHECKOUT / ELSEWHERE[role] if role in ELSEWHERE else CHECKOUT / "molecule" / role / "molecule.yml"
    assert place.exists(), f"no molecule/{role}: see CONTRIBUTING.md"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
class TestAScenario:
    def test_runs_every_step_that_proves_something(self, scenario, shared):
        usual = shared["scenario"]["test_sequence"]
        own = load(scenario / "molecule.yml").get("scenario", {}).get("test_sequence", usual)
        assert [step for step in own if step not in ("prepare", "side_effect")] == usual
        for step in ("prepare", "side_effect"):
            assert (step in own) == (scenario / f"{step}.yml").exists()

    def test_is_of_the_new_form(self, scenario):
        assert not {"driver", "platforms", "provisioner"} & set(load(scenario / "molecule.yml"))

    def test_has_tests_that_look_at_the_machine(self, scenario):
        assert list((scenario / "tests").glob("test_*.py"))
