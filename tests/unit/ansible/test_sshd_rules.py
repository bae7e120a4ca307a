"""What sshd makes of the drop-in: rules for one account, nothing for the administrator."""

import os
import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest

TEMPLATE = Path(__file__).resolve().parents[3] / "roles" / "worker_base" / "templates" / "sshd.conf.j2"
SSHD = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")

pytestmark = pytest.mark.skipif(SSHD is None, reason="needs sshd, which ./dev setup installs")


@pytest.fixture
def effective(tmp_path):
    """A function: account -> its settings, as sshd itself says."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # no HTML
    environment.filters["comment"] = lambda text: f"# {text}"
    rules = environment.from_string(TEMPLATE.read_text()).render(
        ansible_managed="by Ansible",
        worker_base_user="rch",
        worker_base_max_sessions=64,
        worker_base_forced_command=True,
        __worker_base_gate="/usr/local/lib/rch/forced-command",
    )
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True, timeout=30)
    (tmp_path / "rules").write_text(rules)
    (tmp_path / "config").write_text(
        f"HostKey {tmp_path}/key\nInclude {tmp_path}/rules\nPasswordAuthentication yes\nX11Forwarding yes\n"
    )

    def ask(user):
        words = [SSHD, "-T", "-f", tmp_path / "config", "-C", f"user={user},host=h,addr=192.0.2.1"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)

    return ask


def test_the_account_has_keys_only_and_forwards_nothing(effective):
    rules = effective("rch")
    assert {name: rules[name] for name in rules if "forwarding" in name and name != "disableforwarding"} == {
        "allowagentforwarding": "no",
        "allowstreamlocalforwarding": "no",
        "allowtcpforwarding": "no",
        "x11forwarding": "no",
    }
    assert rules["passwordauthentication"] == "no"
    assert rules["authenticationmethods"] == "publickey"
    assert rules["maxsessions"] == "64"
    assert rules["forcecommand"] == "/usr/local/lib/rch/forced-command"


def test_the_administrator_keeps_what_the_machine_says_also_behind_the_drop_in(effective):
    rules = effective("ubuntu")
    assert (rules["passwordauthentication"], rules["x11forwarding"]) == ("yes", "yes")
    assert rules["maxsessions"] == "10"
    assert rules["forcecommand"] == "none"
