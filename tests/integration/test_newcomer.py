"""A fresh Debian 12 with Python 3.11 and git, nothing else: ./dev does the rest."""

import os
import re
import secrets
import subprocess
from pathlib import Path

import pytest

from rch.testing.lab_containers import ContainerLab
from rch.testing.lab_provision import CHECKOUT

pytestmark = [pytest.mark.container, pytest.mark.heavy, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def machine(lab_place, tmp_path_factory):
    """A function that runs a shell line as root of a blank machine with a clone of this checkout in /root/rch."""
    if os.geteuid() != 0:
        pytest.skip("container workers need root for a network bridge; the CI machine (root) runs this")
    lab = ContainerLab(os.path.join(lab_place, "boxes-newcomer"))
    lab.podman.prepare()
    clone = tmp_path_factory.mktemp("clone") / "rch"
    subprocess.run(
        ["git", "clone", "--quiet", "--depth", "1", f"file://{CHECKOUT}", str(clone)], check=True, timeout=120
    )
    # How this machine reaches the package index is its own affair; the new one stands where it stands.
    words = [
        word for name in os.environ if name.startswith("PIP_") and name != "PIP_FIND_LINKS" for word in ("--env", name)
    ]
    for path in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"):
        words += ["--volume", f"{path}:{path}:ro"] if Path(path).exists() else []
    name = f"rch-newcomer-{secrets.token_hex(4)}"
    # As on a machine of its own: root may make namespaces, and sandboxes may name their host.
    options = [
        "--cap-add",
        "SYS_ADMIN",
        "--security-opt",
        "unmask=ALL",
        "--security-opt",
        "seccomp=unconfined",
        "--volume",
        f"{clone}:/clone:ro",
    ]
    lab.podman.run(
        "run", "--detach", "--name", name, "--hostname", "newcomer", *options, *words, lab.image(), "sleep", "7200"
    )

    def run(line, timeout_s=1200):
        done = lab.podman.run(
            "exec", name, "sh", "-c", f"cd /root/rch 2>/dev/null; {line}", timeout_s=timeout_s, check=False
        )
        return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")

    try:
        status, said = run("apt-get -qq update && apt-get -qq install -y git && cp -r /clone /root/rch", 300)
        assert status == 0, said
        yield run
    finally:
        lab.podman.run("rm", "--force", "--time", "0", name, check=False)
        lab.podman.tidy()


class TestAFreshMachine:
    def test_shows_the_demo_after_one_command(self, machine):
        assert machine("command -v rsync bwrap cargo cc pip")[1] == ""
        status, text = machine("./dev demo")
        assert status == 0, text
        for number in range(1, 7):
            assert f"[{number}/6] " in text
        assert re.search(r"ansible: ok=\d+ changed=[1-9]\d* failed=0 .* again: changed=0", text)
        assert "local rebuild: nothing to do (cargo: 6 of 6 units Fresh" in text

    def test_needs_no_set_up_the_second_time(self, machine):
        assert machine("./dev setup")[0] == 0
        status, said = machine("./dev setup && git status --porcelain && ls .lab")
        assert "dev:" not in said  # silent: nothing was missing, nothing was made
        assert "No such file" in said  # the demo left no lab behind
        assert status == 2  # of that ls

    def test_passes_lint(self, machine):
        status, said = machine("./dev lint")
        assert status == 0, said

    def test_passes_the_unit_tests(self, machine):
        status, said = machine("./dev test --fast tests/unit -q --tb=short")
        assert status == 0, said[-20_000:]

    def test_without_root_is_told_what_to_install(self, machine):
        # A machine where the packages are missing and nobody is root: sshd's package is taken for missing.
        line = (
            "useradd --create-home me 2>/dev/null; cp -r /clone /home/me/rch && chown -R me /home/me/rch && "
            "mv /usr/sbin/sshd /usr/sbin/sshd.away; su me -c 'cd && cd rch && ./dev setup'; status=$?; "
            "mv /usr/sbin/sshd.away /usr/sbin/sshd; exit $status"
        )
        status, said = machine(line)
        assert status == 1
        assert "dev: missing system packages: openssh-server - as root: apt install openssh-server" in said
