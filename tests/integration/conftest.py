"""A blank Debian 12 with Python and git, and a clone of this checkout in it: for what is installed from nothing."""

import os
import secrets
import subprocess
from pathlib import Path

import pytest

from rch.testing.lab_containers import ContainerLab
from rch.testing.lab_provision import CHECKOUT


@pytest.fixture(scope="module")
def machine(lab_place, tmp_path_factory):
    """A function that runs a shell line as root of a blank machine with a clone of this checkout in /root/rch."""
    if os.geteuid() != 0:
        pytest.skip("container workers need root for a network bridge; the CI machine (root) runs this")
    lab = ContainerLab(os.path.join(lab_place, f"boxes-{secrets.token_hex(2)}"))
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
