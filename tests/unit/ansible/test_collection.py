"""What the wheel carries as the collection rch.fleet, and the example inventories, loaded by Ansible itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rch.errors import UsageError
from rch.fleet import playbooks as module
from rch.fleet.playbooks import collection_root, playbook

TOP = Path(__file__).parents[3]
COLLECTION = "ansible_collections/rch/fleet"


@pytest.fixture(scope="module")
def carried() -> set[str]:
    """Names that the build hook adds to a wheel."""
    sys.path.insert(0, str(TOP))
    try:
        hatchling = pytest.importorskip(
            "hatchling.builders.hooks.plugin.interface", reason="only where a wheel is built"
        )
        assert hatchling
        from hatch_build import CollectionHook
    finally:
        sys.path.remove(str(TOP))
    build_data: dict[str, Any] = {"force_include": {}}
    hook = CollectionHook(str(TOP), {}, None, None, "", "wheel")
    hook.initialize("editable", build_data)
    assert build_data["force_include"] == {}  # a copy would be stale at once
    hook.initialize("standard", build_data)
    return set(build_data["force_include"].values())


def test_every_tracked_playbook_plugin_and_role_travels_but_the_lab(carried: set[str]) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "playbooks", "plugins", "roles"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    wanted = {f"{COLLECTION}/{name}" for name in listed.stdout.splitlines()} - {f"{COLLECTION}/playbooks/lab.yml"}
    assert wanted <= carried
    assert f"{COLLECTION}/playbooks/lab.yml" not in carried
    assert {f"{COLLECTION}/galaxy.yml", f"{COLLECTION}/ansible.cfg", f"{COLLECTION}/meta/runtime.yml"} <= carried


class TestPlaybooks:
    def test_are_the_checkouts_here(self) -> None:
        assert collection_root() == str(TOP)
        assert playbook("site") == str(TOP / "playbooks/site.yml")

    def test_are_the_collections_where_rch_is_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / COLLECTION / "playbooks").mkdir(parents=True)
        monkeypatch.setattr(module, "_PACKAGES", str(tmp_path))
        assert collection_root() == str(tmp_path / COLLECTION)
        with pytest.raises(UsageError, match="has no playbook site"):
            playbook("site")


@pytest.fixture(scope="module")
def constructed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Ansible makes of examples/inventory with the facts of two workers in its cache."""
    place = tmp_path_factory.mktemp("facts")
    local = {"cores": 32, "os": {"id": "debian", "version_id": "12"}, "machine": "x86_64"}
    other = {"cores": 4, "os": {"id": "ubuntu", "version_id": "24.04"}, "machine": "aarch64"}
    for name, facts in (("css", local), ("yto", other)):
        (place / name).mkdir()
        (place / name / "rch.fact").write_text(json.dumps(facts))
    env = {**os.environ, "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "ANSIBLE_HOME": str(place / "home")}
    env["ANSIBLE_CACHE_PLUGIN_CONNECTION"] = str(place / "cache")

    def ansible(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ansible", *words],
            cwd=TOP, env=env, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    asked = ansible(
        *("adhoc", "-i", "css,yto,", "all", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"),
        *(
            "-m",
            "ansible.builtin.setup",
            "-a",
            f"gather_subset=!all,!min,local fact_path={place}/{{{{ inventory_hostname }}}}",
        ),
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr
    done = ansible("inventory", "-i", "examples/inventory", "--list")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class TestTheConstructedExample:
    def test_makes_groups_of_facts(self, constructed: dict[str, Any]) -> None:
        members = {name: group.get("hosts", []) for name, group in constructed.items() if name != "_meta"}
        assert members["many_cores"] == ["css"]
        assert members["arch_x86_64"] == ["css"]
        assert members["arch_aarch64"] == ["yto"]
        assert members["os_debian_12"] == ["css"]
        assert members["os_ubuntu_24_04"] == ["yto"]

    def test_reads_variables_of_groups_and_hosts(self, constructed: dict[str, Any]) -> None:
        hostvars = constructed["_meta"]["hostvars"]
        assert hostvars["css"]["rch_slots"] == 32
        assert hostvars["css"]["rch_cache_dir"] == hostvars["yto"]["rch_cache_dir"] == "~/.rch"

    def test_is_an_inventory_that_rch_takes(self, tmp_path: Path) -> None:
        from rch.fleet.registry import compile_registry
        from rch.paths import AbsPath

        registry = compile_registry(AbsPath(str(tmp_path)), AbsPath(str(TOP / "examples/inventory")))
        assert set(registry.workers) == {"css", "yto"}
        assert registry.workers["css"].declared.tags == ("heavy",)
