"""The embedded lab: real sshd, nothing left behind, also without root and after a failure."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rch.errors import Unreachable
from rch.testing import lab_processes
from rch.testing.lab import EmbeddedLab, remove_tree, stop_daemons, system_python
from rch.testing.lab_provision import CHECKOUT, PlaybookFailed, parse_recap, provision

pytestmark = pytest.mark.sshd


@pytest.fixture
def lab(tmp_path):
    """A lab without roles in a directory whose name has a blank; taken down whatever happens."""
    lab = EmbeddedLab(str(tmp_path / "a lab"), workers=2)
    lab.up(with_roles=False)
    yield lab
    lab.down()


class TestALabThatIsUp:
    def test_runs_commands_by_ssh_with_its_own_keys_alone(self, lab):
        done = lab.worker.run("printf", "%s|", "a b", "$HOME", "*", "it's")
        assert done.stdout == b"a b|$HOME|*|it's|"
        assert done.stderr == b""

    def test_refuses_another_key(self, lab, tmp_path):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True, timeout=30
        )
        words = [
            str(tmp_path / "other") if word == lab.worker.client_key else word
            for word in lab.worker.ssh_command("true")
        ]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
        assert done.returncode == 255
        assert b"Permission denied" in done.stderr

    def test_is_refused_by_the_client_when_its_host_key_is_another(self, lab):
        text = Path(lab.worker.known_hosts).read_text()
        Path(lab.worker.known_hosts).write_text(
            text.replace(text.split()[2], Path(f"{lab.worker.keys}/client.pub").read_text().split()[1])
        )
        done = lab.worker.run("true")
        assert done.returncode == 255
        assert b"HOST IDENTIFICATION HAS CHANGED" in done.stderr

    def test_listens_on_the_loopback_address_alone(self, lab):
        with socket.socket() as other:
            other.settimeout(2)
            assert other.connect_ex(("127.0.0.2", lab.worker.port)) != 0

    def test_names_its_workers_in_an_inventory_that_ansible_reads(self, lab):
        path = Path(lab.inventory, "hosts.yml")
        hosts = yaml.safe_load(path.read_text())["all"]["children"]["rch_workers"]["hosts"]
        assert list(hosts) == ["lab1", "lab2"]
        assert hosts["lab1"]["rch_embedded"] is True
        assert hosts["lab1"]["ansible_port"] != hosts["lab2"]["ansible_port"]
        assert path.stat().st_mode & 0o777 == 0o600
        env = {
            **os.environ,
            "ANSIBLE_HOME": f"{lab.directory}/ansible",
            "ANSIBLE_LOCAL_TEMP": f"{lab.directory}/ansible/tmp",
        }
        pinged = subprocess.run(
            [os.path.join(os.path.dirname(sys.executable), "ansible"), "-i", lab.inventory, "rch_workers", "-m", "ping"],
            env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=90, check=False, cwd=lab.directory,
        )  # fmt: skip
        assert pinged.stdout.count(b"pong") == 2, pinged.stdout + pinged.stderr

    def test_reads_no_start_up_file_of_the_account(self, lab):
        done = lab.worker.run("sh", "-c", 'echo "$SHLVL $ZDOTDIR"')
        level, place = done.stdout.decode().split(maxsplit=1)
        assert int(level) >= 1  # bash reads .bashrc for sshd only when it is the first shell
        assert place.strip() == os.path.join(lab.worker.directory, "empty")
        assert os.listdir(place.strip()) == []

    def test_stays_as_it_is_when_it_is_brought_up_again(self, lab):
        before = lab.status()
        pids = [worker.sshd_pid() for worker in lab.workers.values()]
        again = EmbeddedLab(lab.directory, workers=5)
        again.up(with_roles=False)
        assert again.status() == before
        assert [worker.sshd_pid() for worker in again.workers.values()] == pids


class TestUnplugging:
    def test_cuts_every_connection_and_leaves_the_work_running(self, lab):
        lab.worker.run("sh", "-c", "setsid sleep 300 >/dev/null 2>&1 &")
        waiting = subprocess.Popen(
            lab.worker.ssh_command("sleep", "300"), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: len(lab.worker.processes()) >= 2)
        lab.worker.unplug()
        assert waiting.wait(20) == 255
        assert not lab.worker.answers()
        assert lab.worker.run("true").returncode == 255
        assert lab.worker.processes()
        assert list(lab.workers.values())[1].answers()
        lab.worker.plug_in()
        assert lab.worker.run("true").returncode == 0

    def test_switching_off_ends_the_work_too(self, lab):
        lab.worker.run("sh", "-c", "setsid sleep 300 >/dev/null 2>&1 &")
        wait_until(lab.worker.processes)
        lab.worker.power_off()
        assert not lab.worker.processes()
        assert not lab.worker.answers()


class TestTakingALabDown:
    def test_leaves_no_process_and_no_file(self, lab):
        pids = {worker.sshd_pid() for worker in lab.workers.values()}
        for worker in lab.workers.values():
            worker.run("sh", "-c", "(setsid sh -c 'trap \"\" TERM; sleep 300; sleep 300' &) >/dev/null 2>&1")
        wait_until(lambda: all(worker.processes() for worker in lab.workers.values()))
        pids |= set().union(*(worker.processes() for worker in lab.workers.values()))
        lab.down()
        assert not os.path.exists(lab.directory)
        assert not [pid for pid in pids if lab_processes.start_time(pid) is not None]

    def test_can_be_done_by_another_process_and_twice(self, lab):
        pid = lab.worker.sshd_pid()
        script = "import sys; from rch.testing.lab import EmbeddedLab; lab = EmbeddedLab(sys.argv[1]); lab.down(); lab.down()"
        subprocess.run([sys.executable, "-c", script, lab.directory], check=True, timeout=60, cwd=CHECKOUT)
        assert lab_processes.start_time(pid) is None
        assert not os.path.exists(lab.directory)

    def test_stops_an_rchd_of_its_state_directory_and_no_other(self, tmp_path):
        def daemon(state):
            # A stand-in by name and environment: the rule looks at nothing else.
            return subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(300)", "rchd"],
                env={**os.environ, "RCH_STATE_DIR": state},
            )

        ours, other = daemon(f"{tmp_path}/a/state"), daemon(f"{tmp_path}/ab/state")
        try:
            time.sleep(0.2)
            stop_daemons(f"{tmp_path}/a")
            assert ours.wait(10) == -signal.SIGTERM
            assert other.poll() is None
        finally:
            for process in (ours, other):
                process.kill()
                process.wait(10)

    def test_removes_read_only_trees_but_nothing_behind_a_link(self, tmp_path):
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept/file").write_text("x")
        tree = tmp_path / "tree"
        (tree / "deep").mkdir(parents=True)
        (tree / "deep/file").write_text("x")
        (tree / "link").symlink_to(tmp_path / "kept")
        (tree / "deep").chmod(0o500)
        remove_tree(str(tree))
        assert not tree.exists()
        assert (tmp_path / "kept/file").exists()


class TestALabThatFailsToComeUp:
    def test_is_taken_down_again_and_says_why(self, tmp_path, monkeypatch):
        monkeypatch.setattr("rch.testing.lab._SSHD_CONFIG", "Port {port}\nNonsense yes\n")
        lab = EmbeddedLab(str(tmp_path / "lab"))
        with pytest.raises(Unreachable, match=r"does not answer .*(Nonsense|terminating)"):
            lab.up(with_roles=False)
        assert not os.path.exists(lab.directory)

    def test_keeps_what_ansible_said_when_a_role_fails(self, tmp_path):
        playbook = tmp_path / "broken.yml"
        playbook.write_text(
            "- hosts: rch_workers\n  gather_facts: false\n  tasks:\n    - ansible.builtin.fail: {msg: no luck today}\n"
        )
        lab = EmbeddedLab(str(tmp_path / "lab"))
        lab.up(with_roles=False)
        try:
            with pytest.raises(PlaybookFailed, match=r"ended with status 2 .*failed=1") as caught:
                provision(lab.inventory, scratch=lab.directory, playbook=str(playbook))
            assert "no luck today" in caught.value.recap.output
            assert caught.value.exit_status == 5
            assert os.path.exists(caught.value.hint.removeprefix("read "))
        finally:
            lab.down()

    def test_stops_ansible_and_its_children_when_the_time_is_up(self, tmp_path):
        playbook = tmp_path / "slow.yml"
        playbook.write_text(
            "- hosts: rch_workers\n  gather_facts: false\n  tasks:\n    - ansible.builtin.command: sleep 300\n"
        )
        with EmbeddedLab_without_roles(tmp_path / "lab") as lab:
            with pytest.raises(PlaybookFailed, match="status 124"):
                provision(lab.inventory, scratch=lab.directory, playbook=str(playbook), timeout_s=8)
            pids = lab.worker.processes()
        assert not [pid for pid in pids if lab_processes.start_time(pid) is not None]


class TestWithoutRoot:
    def test_a_lab_works_for_an_ordinary_user_whatever_its_shell_reads(self, tmp_path):
        """The user is made by a user namespace: uid 1000, bash with a profile that prints and sleeps."""
        home = tmp_path / "home"
        home.mkdir()
        (home / ".bashrc").write_text("echo noise; sleep 2\n")
        (tmp_path / "passwd").write_text(
            f"root:x:0:0::/root:/bin/sh\nme:x:1000:1000::{home}:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        )
        script = (
            "import os, sys; from rch.testing.lab import EmbeddedLab; lab = EmbeddedLab(sys.argv[1])\n"
            "lab.up(with_roles=False)\n"
            "try:\n"
            "    assert os.getuid() == 1000\n"
            "    done = lab.worker.run('sh', '-c', 'echo fine; id -u')\n"
            "    print(done.stdout, done.stderr)\n"
            "finally: lab.down()\n"
            "assert not os.path.exists(lab.directory)\n"
        )
        # The environment's own interpreter may lie in root's home, where that user may not look; the lab needs no packages.
        bwrap = [
            "bwrap",
            "--unshare-user",
            "--uid",
            "1000",
            "--gid",
            "1000",
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
        ]
        binds = ["--bind", str(tmp_path), str(tmp_path), "--ro-bind", str(tmp_path / "passwd"), "/etc/passwd"]
        done = subprocess.run(
            [*bwrap, *binds, system_python(), "-B", "-c", script, str(tmp_path / "lab")],
            env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": CHECKOUT, "USER": "me", "LOGNAME": "me"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == "b'fine\\n1000\\n' b''\n"


class TestReadingARecap:
    def test_gives_the_counts_per_host(self):
        text = "PLAY RECAP ***\nlab1 : ok=3    changed=1    unreachable=0    failed=0    skipped=2\nbox2   : ok=1 changed=0 failed=1\n\n"
        assert parse_recap(text) == {
            "lab1": {"ok": 3, "changed": 1, "unreachable": 0, "failed": 0, "skipped": 2},
            "box2": {"ok": 1, "changed": 0, "failed": 1},
        }

    def test_takes_no_task_output_for_one(self):
        assert parse_recap("lab1 : ok=9 changed=9\n") == {}


def wait_until(condition, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 20 s"
        time.sleep(0.02)


class EmbeddedLab_without_roles:
    def __init__(self, directory):
        self.lab = EmbeddedLab(str(directory))

    def __enter__(self):
        self.lab.up(with_roles=False)
        return self.lab

    def __exit__(self, *_):
        self.lab.down()
