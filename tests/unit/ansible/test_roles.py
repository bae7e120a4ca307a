"""The shape of every role: specs, defaults, private names and pages agree."""

import configparser
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rch.fleet import load_registry

CHECKOUT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (CHECKOUT / "roles").iterdir())


def load(*parts):
    path = CHECKOUT.joinpath("roles", *parts)
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def families_of(role):
    """Files of variables that one family of distributions has for itself."""
    return [path for path in (CHECKOUT / "roles" / role / "vars").glob("*.yml") if path.name != "main.yml"]


def named_in_defaults(role):
    """Every variable of defaults/main.yml, the required ones being commented out."""
    text = (CHECKOUT / "roles" / role / "defaults" / "main.yml").read_text()
    return re.findall(rf"(?m)^(?:# )?({role}_\w+):", text)


@pytest.fixture(scope="module")
def documented():
    """What Ansible itself makes of the specs."""
    program = os.path.join(os.path.dirname(sys.executable), "ansible-doc")
    done = subprocess.run(
        [program, "-t", "role", "-r", str(CHECKOUT / "roles"), "-j", *ROLES],
        capture_output=True,
        timeout=60,
        check=True,
        env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("role", ROLES)
class TestARole:
    def test_pd_02_specifies_exactly_the_variables_that_its_defaults_name(self, role, documented):
        options = documented[role]["entry_points"]["main"]["options"]
        assert sorted(options) == sorted(named_in_defaults(role))

    def test_pd_02_states_the_defaults_that_it_has(self, role, documented):
        defaults = load(role, "defaults", "main.yml") or {}
        for name, option in documented[role]["entry_points"]["main"]["options"].items():
            if option.get("required"):
                assert name not in defaults
            elif "default" in option and "{{" not in str(defaults[name]):
                assert option["default"] == defaults[name], name

    def test_pd_02_knows_exactly_its_variables_when_it_refuses_others(self, role, documented):
        known = load(role, "vars", "main.yml")[f"__{role}_known"]
        outputs = {"rch_worker": ["rch_worker_facts"]}.get(role, [])
        assert sorted(known) == sorted([*documented[role]["entry_points"]["main"]["options"], *outputs])

    def test_pd_06_is_the_one_of_the_checkout(self, role, documented):
        assert documented[role]["path"] == str(CHECKOUT / "roles" / role)

    def test_names_the_same_things_for_every_family_of_distributions(self, role):
        families = {path.name: set(yaml.safe_load(path.read_text())) for path in families_of(role)}
        assert len({frozenset(names) for names in families.values()}) <= 1, families
        assert all(name.startswith(f"__{role}_") for names in families.values() for name in names)
        assert not families or {"Debian.yml", "RedHat.yml"} <= set(families)

    def test_keeps_its_private_names_private(self, role):
        assert all(name.startswith(f"__{role}_") for name in load(role, "vars", "main.yml"))

    def test_tells_its_story_in_main_and_does_its_work_elsewhere(self, role):
        for task in load(role, "tasks", "main.yml"):
            # Imported, which costs no task when it runs; included where a condition would be asked before every task.
            assert ("ansible.builtin.include_tasks" in task) == ("when" in task)
            assert ("ansible.builtin.import_tasks" in task) == ("when" not in task)

    def test_has_every_file_of_tasks_in_use(self, role):
        folder = CHECKOUT / "roles" / role / "tasks"
        text = "".join(path.read_text() for path in (CHECKOUT / "roles").glob("*/tasks/*.yml"))
        text += "".join(path.read_text() for path in (CHECKOUT / "playbooks").rglob("*.yml"))
        for path in folder.iterdir():
            assert path.name == "main.yml" or f"{path.name}" in text

    def test_reads_facts_only_as_facts(self, role):
        """inject_facts_as_vars is off: a bare ansible_distribution would be undefined."""
        for path in (CHECKOUT / "roles" / role).rglob("*.yml"):
            assert not re.search(
                r"\bansible_(distribution|os_family|architecture|processor\w*|user_id)\b", path.read_text()
            )

    def test_has_a_page_that_was_written_from_it(self, role):
        place = CHECKOUT / "docs" / "role_readmes.py"
        spec = importlib.util.spec_from_file_location("role_readmes", place)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        page = (CHECKOUT / "roles" / role / "README.md").read_text()
        assert page == module.readme(role), "run: python docs/role_readmes.py"

    def test_says_what_to_do_when_something_goes_wrong(self, role):
        page = (CHECKOUT / "roles" / role / "TROUBLESHOOTING.md").read_text()
        rows = [line.strip("|").split(" | ") for line in page.splitlines() if line.startswith("| ")]
        assert rows[0][0].strip() == "symptom"
        assert len(rows) >= 3
        assert all(len(cells) == 3 and all(cell.strip() for cell in cells) for cells in rows)


class TestTheConfiguration:
    @pytest.fixture
    def settings(self):
        parser = configparser.ConfigParser(inline_comment_prefixes=(";",))
        parser.read(CHECKOUT / "ansible.cfg")
        return parser

    def test_pd_06_takes_a_broken_inventory_for_an_error(self, settings):
        assert settings.getboolean("inventory", "any_unparsed_is_failed")

    def test_pd_06_keeps_facts_out_of_the_variables(self, settings):
        assert not settings.getboolean("defaults", "inject_facts_as_vars")
        assert "strategy" not in settings["defaults"]

    def test_never_switches_host_key_checking_off(self, settings):
        text = (CHECKOUT / "ansible.cfg").read_text()
        assert "host_key_checking" not in text
        assert "StrictHostKeyChecking" not in text


def test_the_shipped_inventory_is_valid_and_empty(tmp_path):
    assert load_registry(str(tmp_path), str(CHECKOUT / "inventory")).workers == {}


def test_d_9_the_packages_that_every_worker_gets_come_from_the_distribution():
    cpp = load("toolchain_cpp", "vars", "main.yml")
    usual = {row["package"] for row in cpp["__toolchain_cpp_packages"]["Debian"]}
    assert {"build-essential", "gcc", "g++", "pkg-config", "libssl-dev"} <= usual
    clang = {row["package"] for row in cpp["__toolchain_cpp_clang_packages"]["Debian"]}
    assert clang == {"clang{{ __toolchain_cpp_clang_suffix }}", "llvm{{ __toolchain_cpp_clang_suffix }}"}
    base = {row["package"] for row in load("worker_base", "vars", "main.yml")["__worker_base_packages"]}
    assert {"rsync", "zstd"} <= base


def test_d_4_and_d_10_what_a_role_does_when_nobody_says_anything():
    cache = load("compiler_cache", "defaults", "main.yml")
    assert (cache["compiler_cache_dir"], cache["compiler_cache_backend"]) == ("/var/cache/sccache", "local")
    rust = load("toolchain_rust", "defaults", "main.yml")
    assert (rust["toolchain_rust_components"], rust["toolchain_rust_targets"]) == (["clippy", "rustfmt"], [])


def test_dev_names_the_packages_that_the_role_controller_installs():
    script = (CHECKOUT / "dev").read_text()
    wanted = {}
    for name in ("DEMO", "TEST"):
        block = re.search(rf"(?s){name}_COMMANDS=['\"](.*?)['\"]\n", script)[1]
        wanted[name] = dict(pair.split(":") for pair in block.split() if ":" in pair)
    lists = load("controller", "vars", "main.yml")
    for name, key in (("DEMO", "__controller_packages"), ("TEST", "__controller_test_packages")):
        here = {one["command"]: one["package"] for one in lists[key]["Debian"] if one["command"]}
        if name == "DEMO":  # which package brings cargo differs from release to release; ./dev names the usual one
            assert here["cargo"] == "{{ __controller_cargo }}"
            here["cargo"] = "cargo"
        missing = {command: package for command, package in wanted[name].items() if command not in here}
        assert missing == ({"cc": "gcc"} if name == "DEMO" else {})
        assert all(here[command] == wanted[name].get(command, here[command]) for command in here)


def test_the_playbooks_know_every_role_that_has_a_hand_in_a_worker():
    """Preflight refuses unknown variables of these, and remove.yml lets each take its own away."""
    known = yaml.safe_load((CHECKOUT / "playbooks" / "vars" / "worker.yml").read_text())["worker_roles"]
    assert set(ROLES) - {"controller", "system_packages", "workstation"} <= set(known)
    assert known[-1] == "worker_base"  # it takes the account and the cache, which the others still need
