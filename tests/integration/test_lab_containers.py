"""The container lab: machines with addresses of their own, nothing left behind but the cached image."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from rch.errors import Refused
from rch.testing.lab_containers import ContainerLab, Podman

pytestmark = pytest.mark.container


@pytest.fixture(scope="module")
def lab(lab_place):
    """Two bare containers with one CPU each; the image may have to be made first (about a minute)."""
    if os.geteuid() != 0:
        pytest.skip("container workers need root for a network bridge; the CI machine (root) runs this")
    lab = ContainerLab(os.path.join(lab_place, "boxes"), workers=2, cpus=1)
    lab.up(with_roles=False)
    yield lab
    lab.down()


def ssh(worker, *words):
    return subprocess.run(
        worker.ssh_command(*words), stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )


class TestContainers:
    def test_are_machines_of_their_own(self, lab):
        boxes = list(lab.workers.values())
        assert [ssh(box, "hostname").stdout for box in boxes] == [b"box1\n", b"box2\n"]
        assert len({box.host for box in boxes}) == 2
        keys = {ssh(box, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout for box in boxes}
        assert len(keys) == 2
        assert ssh(boxes[0], "id", "-u").stdout == b"0\n"

    def test_have_nothing_that_the_roles_are_to_bring(self, lab):
        assert ssh(lab.worker, "sh", "-c", "command -v rsync bwrap cc cargo tmux zstd").stdout == b""
        assert ssh(lab.worker, "python3", "-c", "print(1)").stdout == b"1\n"

    def test_reach_each_other_and_the_mirror(self, lab):
        first, second = lab.workers.values()
        script = f"import socket; print(socket.create_connection(('{second.host}', 22), 5).recv(4))"
        assert b"SSH-" in ssh(first, "python3", "-c", script).stdout

    def test_keep_their_address_and_host_key_when_switched_off_and_on(self, lab):
        box = lab.worker
        ssh(box, "touch", "/root/kept")
        box.power_off()
        assert not box.answers()
        assert ssh(box, "true").returncode == 255
        box.power_on()
        assert ssh(box, "ls", "/root/kept").stdout == b"/root/kept\n"

    def test_say_nothing_while_they_are_frozen(self, lab):
        box = lab.worker
        box.freeze()
        assert not box.answers()
        box.thaw()
        assert box.answers()

    def test_get_the_cpus_they_were_given(self, lab):
        quota = ssh(
            lab.worker, "sh", "-c", "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max"
        )
        assert quota.stdout.split()[0] == b"100000"


class TestTakingThemDown:
    def test_removes_containers_network_and_keys_of_this_lab_alone(self, lab, lab_place):
        other = ContainerLab(os.path.join(lab_place, "boxes2"))
        started = time.monotonic()
        other.up(with_roles=False)
        assert time.monotonic() - started < 60  # about 1 s with a cached image
        assert other.worker.host != lab.worker.host
        container, network = other.worker.container, other.worker.container.rpartition("-")[0]
        other.down()
        names = other.podman.run("ps", "--all", "--format", "{{.Names}}").stdout.decode().split()
        assert container not in names
        assert lab.worker.container in names
        networks = other.podman.run("network", "ls", "--format", "{{.Name}}").stdout.decode().split()
        assert network not in networks
        assert not Path(other.directory).exists()
        assert ssh(lab.worker, "true").returncode == 0

    def test_also_finds_what_a_killed_up_did_not_write_down(self, lab_place):
        lab = ContainerLab(os.path.join(lab_place, "boxes3"))
        lab.up(with_roles=False)
        record = Path(lab.directory, "lab.json")
        container = lab.worker.container
        record.write_text(record.read_text().replace(container, "nobody"))
        ContainerLab(lab.directory).down()
        assert container not in lab.podman.run("ps", "--all", "--format", "{{.Names}}").stdout.decode().split()

    def test_leaves_the_users_own_podman_alone(self, lab):
        mine = subprocess.run(
            ["podman", "ps", "-a", "--format", "{{.Names}}"], capture_output=True, text=True, timeout=60, check=False
        )
        assert lab.worker.container not in mine.stdout


def test_without_root_the_lab_is_refused_with_the_way_out(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Refused, match="need root") as caught:
        Podman(str(tmp_path)).prepare()
    assert "inv lab.up" in caught.value.hint
