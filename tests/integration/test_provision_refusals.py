"""What cannot work is refused before anything is changed, in one line: host, what is wrong, what to do next."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from rch.testing.lab_containers import ContainerLab
from rch.testing.lab_provision import PlaybookFailed, provision

pytestmark = [pytest.mark.container, pytest.mark.slow]

LISTING = (
    "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \\) -prune -o "
    "-printf '%y %m %u %s %p\\n' | grep -v -e /var/log/ -e /root/.bash_history -e ' /$' | sort"
)


@pytest.fixture(scope="module")
def lab(lab_place):
    """One container that no role has touched."""
    if os.geteuid() != 0:
        pytest.skip("container workers need root for a network bridge; the CI machine (root) runs this")
    lab = ContainerLab(os.path.join(lab_place, "box-refused"))
    lab.up(with_roles=False)
    yield lab
    lab.down()


def there(lab, script):
    done = lab.worker.run("sh", "-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def refused(lab, inventory, **variables):
    """What the play says when it fails, each message on one line."""
    words = [word for name, value in variables.items() for word in ("--extra-vars", f"{name}={value}")]
    with pytest.raises(PlaybookFailed) as caught:
        provision(inventory, scratch=lab.directory, state_dir=lab.state_dir, arguments=tuple(words), timeout_s=300)
    return " ".join(caught.value.recap.output.split())


MACHINES = {
    "no-python": (
        "mv /usr/bin/python3 /usr/bin/python3.away",
        "mv /usr/bin/python3.away /usr/bin/python3",
        {},
        r"box1: has no Python 3; next: as root there, apt install python3 \(dnf install python3\)\. Nothing was changed on it\.",
    ),
    "no-sudo": (
        (
            "useradd -m plain && mkdir /home/plain/.ssh && cp /root/.ssh/authorized_keys /home/plain/.ssh/ && "
            "chown -R plain: /home/plain/.ssh"
        ),
        "userdel -r plain 2>/dev/null",
        {"ansible_user": "plain"},
        (
            r"box1: plain cannot become root there; next: give it sudo, or run with --ask-become-pass, or set "
            r"rch_embedded: true\. Nothing was changed on it\."
        ),
    ),
    "wrong-key": (
        "mv /root/.ssh/authorized_keys /root/.ssh/away",
        "mv /root/.ssh/away /root/.ssh/authorized_keys",
        {},
        (
            r"box1: root cannot log in at [0-9.]+ \(Permission denied\); next: put the right key into "
            r"ansible_ssh_private_key_file or the right account into ansible_user\. Nothing was changed on it\."
        ),
    ),
    "unknown-distribution": (
        "cp -a /usr/lib/os-release /root/os-release && sed -i -e s/^ID=.*/ID=slackware/ /usr/lib/os-release",
        "cp -a /root/os-release /usr/lib/os-release && rm /root/os-release",
        {},
        (
            r"box1: runs slackware; packages can be installed on Debian, Ubuntu and the RHEL family, elsewhere install the "
            r"tools yourself and set rch_embedded: true\. Nothing was changed on it\."
        ),
    ),
    "interrupted-apt": (
        (
            "cp -a /var/lib/dpkg/status /root/status && "
            "sed -i '/^Package: sudo$/,/^$/s/^Status: .*/Status: install ok half-configured/' /var/lib/dpkg/status"
        ),
        "cp -a /root/status /var/lib/dpkg/status && rm /root/status",
        {},
        r"box1: has an interrupted package installation; next: as root there, dpkg --configure -a\. Nothing was changed",
    ),
    "memory-for-a-disk": (
        "true",
        "true",
        {"rch_cache_dir": "/dev/shm/rch"},
        r"box1: rch_cache_dir /dev/shm/rch lies on tmpfs, in memory; next: choose a path on a disk\. Nothing was changed",
    ),
    "no-address": (
        "true",
        "true",
        {"ansible_port": "9"},
        (
            r"box1: [0-9.]+ does not answer \(.*Connection refused.*\); next: is it up, are ansible_host and ansible_port "
            r"right\. Nothing was changed on it\."
        ),
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_that_will_not_do_is_refused_and_stays_as_it_was(lab, name):
    spoil, repair, variables, said = MACHINES[name]
    there(lab, spoil)
    try:
        before = there(lab, LISTING)
        assert re.search(said, refused(lab, lab.inventory, **variables))
        assert there(lab, LISTING) == before
    finally:
        there(lab, repair)


INVENTORIES = {
    "unknown-registry-variable": (
        {"rch_slotz": 4},
        r"hosts\.yml:\d+: box1: unknown registry variable rch_slotz; did you mean rch_slots\?.* Nothing was changed on any host",
    ),
    "slots-as-text": (
        {"rch_slots": "eight"},
        r'hosts\.yml:\d+: box1: rch_slots must be a whole number from 1 to 1024, got "eight".* Nothing was changed on any host',
    ),
    "unknown-variable-of-a-late-role": (
        {"speed_score_max_age": 3},
        r"box1: unknown variable speed_score_max_age; next: the README.md of the role has the names\. Nothing was changed",
    ),
}


@pytest.mark.parametrize("name", INVENTORIES)
def test_a_mistake_in_the_inventory_is_named_with_its_place(lab, tmp_path, name):
    variables, said = INVENTORIES[name]
    shutil.copytree(lab.inventory, tmp_path / "inventory")
    path = tmp_path / "inventory" / "hosts.yml"
    inventory = yaml.safe_load(path.read_text())
    inventory["all"]["children"]["rch_workers"]["hosts"]["box1"].update(variables)
    path.write_text(yaml.safe_dump(inventory))
    before = there(lab, LISTING)
    assert re.search(said, refused(lab, str(tmp_path / "inventory")))
    assert there(lab, LISTING) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; the CI machine (root) runs this")
def test_a_full_disk_is_refused_with_what_is_free(lab_place, embedded_lab, tmp_path):
    """A file system of 16 MiB, for real."""
    image, mount = os.path.join(lab_place, "small.img"), os.path.join(lab_place, "small")
    os.mkdir(mount)
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True, timeout=60)
    try:
        said = refused(embedded_lab, embedded_lab.inventory, rch_cache_dir=f"{mount}/rch")
        assert re.search(
            rf"lab1: has \d+ MiB free at {mount}/rch, a worker needs 1024; next: free some, or set rch_cache_dir", said
        )
        assert os.listdir(mount) == ["lost+found"]
    finally:
        subprocess.run(["umount", mount], check=True, timeout=60)
        os.unlink(image)
        os.rmdir(mount)
