"""What a play says before it changes anything, on this machine alone."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[3]

PLAYBOOKS = sorted(path.name for path in (CHECKOUT / "playbooks").glob("*.yml"))

NOWHERE = """\
all:
  children:
    rch_workers:
      hosts:
        fmd:
          ansible_host: 127.0.0.1
          ansible_port: 1
          rch_slots: "eight"
"""


def play(tmp_path, text):
    path = tmp_path / "play.yml"
    path.write_text(text)
    return path


def role_play(tmp_path, role, **variables):
    return play(
        tmp_path,
        json.dumps(
            [
                {
                    "hosts": "localhost",
                    "connection": "local",
                    "gather_facts": False,
                    "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"},
                    "roles": [{"role": role, **variables}],
                }
            ]
        ),
    )


@pytest.mark.parametrize("name", ["../site.yml", *PLAYBOOKS])
def test_every_playbook_is_sound_and_warns_of_nothing(run, tmp_path, name):
    (tmp_path / "hosts.yml").write_text("all: {children: {rch_workers: {hosts: {one: {}}}}}\n")
    words = ("--syntax-check", "--inventory", str(tmp_path / "hosts.yml"))
    done = run(CHECKOUT / "playbooks" / name, *words)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr


class TestAWrongInventory:
    def test_stops_the_play_in_one_line_before_any_host_is_contacted(self, run, tmp_path):
        (tmp_path / "hosts.yml").write_text(NOWHERE)
        done = run("playbooks/workers.yml", "--inventory", str(tmp_path / "hosts.yml"))
        assert done.returncode == 2
        said = done.messages[-1]
        assert f"{tmp_path}/hosts.yml:8: fmd: rch_slots must be a whole number from 1 to 1024, got" in said
        assert said.endswith("Nothing was changed on any host.")
        assert "UNREACHABLE" not in done.stdout
        assert not (tmp_path / "state").exists()

    def test_stops_the_workstations_play_too(self, run, tmp_path):
        (tmp_path / "hosts.yml").write_text(NOWHERE.replace("rch_slots", "rch_slot"))
        done = run("playbooks/workstation.yml", "--inventory", str(tmp_path / "hosts.yml"))
        assert done.returncode == 2
        assert "unknown registry variable rch_slot; did you mean rch_slots?" in done.messages[-1]


class TestTheWorkstation:
    def test_is_set_up_once_and_then_unchanged(self, run, tmp_path):
        (tmp_path / "hosts.yml").write_text(NOWHERE.replace('"eight"', "8"))
        words = ("playbooks/workstation.yml", "--inventory", str(tmp_path / "hosts.yml"))
        state = tmp_path / "state"

        blank = run(*words, "--check")
        assert blank.returncode == 0, blank.stdout
        assert not state.exists()

        first = run(*words)
        assert first.returncode == 0, first.stdout
        assert {path.name: oct(path.stat().st_mode & 0o777) for path in state.iterdir()} == {
            "client-id": "0o600",
            "registry.json": "0o600",
            "shims": "0o700",
            "ssh": "0o700",
        }
        assert len((state / "client-id").read_text()) == 17
        assert (state / "ssh" / "id_ed25519").stat().st_mode & 0o077 == 0

        before = (state / "client-id").read_text()
        second = run(*words)
        assert "changed=0" in second.stdout
        assert (state / "client-id").read_text() == before


class TestAMistypedVariable:
    def test_pd_02_of_a_role_fails_the_play_by_name(self, run, tmp_path):
        done = run(
            "playbooks/controller.yml",
            "--inventory=localhost,",
            "--extra-vars=controller_packagez=1",
        )
        assert done.returncode == 2
        assert done.messages[-1] == "unknown variable of role controller: controller_packagez"


class TestMissingPackages:
    def test_are_named_in_one_line_where_nothing_may_be_installed(self, run, tmp_path):
        book = role_play(
            tmp_path,
            "system_packages",
            system_packages_wanted=[
                {"package": "coreutils", "command": "ls"},
                {"package": "bubblewrap", "command": "no-such-bwrap"},
                {"package": "no-such-package", "command": ""},
            ],
            system_packages_install=False,
        )
        done = run(book, "--inventory=localhost,")
        assert done.returncode == 2
        assert done.messages[-1].startswith("localhost: missing here: bubblewrap no-such-package; next: as its admin")

    def test_are_announced_in_check_mode_without_touching_the_package_manager(self, run, tmp_path):
        book = role_play(
            tmp_path, "system_packages", system_packages_wanted=[{"package": "no-such-package", "command": ""}]
        )
        done = run(book, "--inventory=localhost,", "--check")
        assert done.returncode == 0, done.stdout
        assert "would install no-such-package" in done.stdout
        assert "changed=1" in done.stdout

    def test_none_means_that_no_package_index_is_read(self, run, tmp_path):
        called = tmp_path / "called"
        (tmp_path / "bin").mkdir()
        for name in ("apt-get", "dnf"):
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\necho $0 >>{called}\n")
            (tmp_path / "bin" / name).chmod(0o755)
        book = role_play(
            tmp_path, "system_packages", system_packages_wanted=[{"package": "coreutils", "command": "ls"}]
        )
        done = run(book, "--inventory=localhost,", PATH=f"{tmp_path}/bin:/usr/bin:/bin")
        assert done.returncode == 0, done.stdout
        assert "changed=0" in done.stdout
        assert not called.exists()


class TestTheLockOfToolchains:
    LOCK = '[rust]\nchannel = "1.95.0"\ncomponents = ["clippy", "rust-src"]\n[caching]\ncc_wrapper = "ccache"\n'

    def test_d_11_becomes_inputs_of_the_roles_on_every_host(self, run, tmp_path):
        (tmp_path / "toolchain.toml").write_text(self.LOCK)
        (tmp_path / "hosts.yml").write_text("all: {vars: {ansible_connection: local}, hosts: {one: {}, two: {}}}\n")
        shown = "{{ [toolchain_rust_channel, toolchain_rust_components, compiler_cache_cc_wrapper, worker_lock] | to_json }}"
        given = {
            "workstation_python": "{{ ansible_playbook_python }}",
            "workstation_environment": {"PYTHONPATH": str(CHECKOUT)},
            "toolchains_lock": str(tmp_path / "toolchain.toml"),
        }
        usual = {"hosts": "all", "gather_facts": False}
        plays = [
            {**usual, "vars": given, "tasks": [{"import_tasks": str(CHECKOUT / "playbooks" / "tasks" / "lock.yml")}]},
            {**usual, "tasks": [{"ansible.builtin.debug": {"msg": f"seen {shown}"}}]},
        ]
        done = run(play(tmp_path, json.dumps(plays)), "--inventory", str(tmp_path / "hosts.yml"))
        assert done.returncode == 0, done.stdout + done.stderr
        keys = {"rust.channel": "1.95.0", "rust.components": ["clippy", "rust-src"], "caching.cc_wrapper": "ccache"}
        seen = json.dumps(["1.95.0", ["clippy", "rust-src"], "ccache", keys])
        assert " ".join(done.stdout.split()).count(f"seen {seen}") == 2, done.stdout

    def test_d_11_stops_the_role_that_cannot_have_what_a_key_asks_for(self, run, tmp_path):
        asked = {
            "channel": {"toolchain_rust_channel": "1.0.7"},
            "date": {"toolchain_rust_channel": "nightly", "toolchain_rust_date": "2016-02-03"},
            "components": {"toolchain_rust_components": ["no-such-part"]},
            "targets": {"toolchain_rust_targets": ["riscv32i-none"]},
            "gcc_version": {"toolchain_cpp_gcc_version": "1"},
            "clang_version": {"toolchain_cpp_clang_version": "1"},
        }
        usual = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "toolchain_rust_method": "copy",
            "toolchain_rust_in_place": True,
            "toolchain_rust_cache_dir": str(tmp_path / "cache"),
            "toolchain_rust_owner": "{{ lookup('ansible.builtin.pipe', 'id -un') }}",
            "toolchain_rust_client": "none-yet",
            "toolchain_cpp_install": False,
        }
        (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"vars": usual, "hosts": asked}}))
        include = {"name": "{{ 'toolchain_cpp' if inventory_hostname is search('version') else 'toolchain_rust' }}"}
        tasks = [{"ansible.builtin.include_role": include}]
        plays = [{"hosts": "all", "gather_facts": False, "tasks": tasks}]
        done = run(play(tmp_path, json.dumps(plays)), "--inventory", str(tmp_path / "hosts.yml"))
        assert done.returncode == 2
        nightly, compiler = (
            "nightly-2016-02-03",
            "; next: install it as the administrator of the machine, or want another one",
        )
        expected = {
            "channel": ("toolchain_rust_channel cannot be had: rustc +1.0.7: ", "; next: here, rustup toolchain install 1.0.7"),
            "date": (f"toolchain_rust_channel cannot be had: rustc +{nightly}: ", f"; next: here, rustup toolchain install {nightly}"),
            "components": ("this workstation's Rust has no component no-such-part; ", "rustup component add no-such-part"),
            "targets": ("this workstation's Rust has no target riscv32i-none; ", "rustup target add riscv32i-none"),
            "gcc_version": (f"toolchain_cpp_gcc_version is 1, gcc there is {self.major('gcc')}", compiler),
            "clang_version": (f"toolchain_cpp_clang_version is 1, clang there is {self.major('clang')}", compiler),
        }  # fmt: skip
        said = dict(message.split(": ", 1) for message in done.messages)
        assert set(said) == set(expected)
        for host, (begin, end) in expected.items():
            assert said[host].startswith(begin)
            assert said[host].endswith(end)
            assert "\n" not in said[host]
            assert len(said[host]) < 300
        assert not (tmp_path / "cache").exists()

    @staticmethod
    def major(compiler):
        """Its major version on this machine."""
        if shutil.which(compiler) is None:
            return "none"
        said = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True, timeout=30, check=True).stdout
        return said.split(".")[0].strip()
