"""``rch install`` on a blank machine, from the wheel: each way of the seed's installer (coverage D-3)."""

import re

import pytest

pytestmark = [pytest.mark.container, pytest.mark.heavy, pytest.mark.timeout(2400)]

BIN = "/opt/rch/bin"


@pytest.fixture(scope="module")
def installed(machine):
    """A function that runs ``rch WORDS`` on a machine where ``pip install`` has been."""
    line = (
        "ssh-keygen -A >/dev/null && mkdir -p /run/sshd && /usr/sbin/sshd && apt-get -qq install -y python3-venv >/dev/null && python3 -m venv /opt/rch && "
        f"{BIN}/pip install --quiet --constraint constraints.txt . && cd / && {BIN}/rch --version"
    )
    status, said = machine(line)
    assert status == 0, said
    assert "rch 0." in said
    return lambda words, timeout_s=1200: machine(f"cd / && {BIN}/rch {words}", timeout_s)


class TestInstall:
    """In the order in which a person would try them; each again, which changes nothing."""

    def test_alone_sets_this_machine_up_and_brings_it_up_to_date(self, installed, machine):
        files = "md5sum /root/.bashrc /root/.profile"
        before = machine(files)
        status, said = installed("install --yes --no-hooks")
        assert status == 0, said
        assert "config.toml written" in said
        assert "rchd started (pid" in said
        assert machine("echo '# mine' >> /root/.config/rch/config.toml")[0] == 0
        status, said = installed("install --easy-mode --no-hooks")
        assert status == 0, said
        assert "written" not in said
        assert "rchd started" not in said
        assert machine("tail -n 1 /root/.config/rch/config.toml")[1] == "# mine\n"
        # D-4: with shims too, a person's shell files are the person's.
        status, said = installed("install --yes")
        assert status == 0, said
        assert "Installed for your shell" in said
        assert machine(files) == before

    def test_worker_only_from_source_makes_this_host_a_worker_by_the_checkouts_playbooks(self, installed, machine):
        machine(
            "cp -r /root/rch /root/other && sed -i 's/Provision the workers/Provision from source/' /root/other/playbooks/workers.yml"
        )
        status, said = installed("install --worker-only --from-source /root/other -v")
        assert status == 0, said
        assert "Provision from source" in said

    def test_fleet_provisions_the_named_hosts_and_upgrades_them_the_second_time(self, installed, machine):
        # The host is this machine once more, by its sshd: an administrator's key, a known host key.
        status, said = machine(
            "install -d -m 700 /root/.ssh && cd /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f id_ed25519 && "
            "cp id_ed25519.pub authorized_keys && ssh-keyscan 127.0.0.1 >known_hosts 2>/dev/null"
        )
        assert status == 0, said
        status, said = installed("install --fleet --yes --no-hooks box=root@127.0.0.1")
        assert status == 0, said
        assert re.search(r"Probing … box \d+ cores ✓", said)
        assert re.search(r"ansible-playbook site\.yml +1 host +ok=\d+ changed=[1-9]", said)
        assert re.search(r"C: gcc .* on box", said)
        assert re.search(r"Speed: box \d+", said)
        assert re.search(r"Canary: make on box … \d+\.\d s, nothing to do here\. Ready\.", said)

        status, said = installed("install --fleet --yes --no-hooks")
        assert status == 0, said
        assert re.search(r"ansible-playbook upgrade\.yml +1 host +ok=\d+ changed=0", said)
        assert "site.yml" not in said
        assert "Canary: make on box" in said
