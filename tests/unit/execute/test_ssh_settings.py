"""What both planes are given of an identity: the one that was configured, private, and no other."""

import os
import subprocess
from fnmatch import fnmatch

import paramiko
import pytest

from rch.errors import Refused
from rch.execute.ssh import PARAMIKOS_KEX
from rch.execute.ssh_settings import REFUSED_KEX, config_file_text, ssh_settings
from rch.fleet.model import Declared


@pytest.fixture
def declared(tmp_path):
    """A worker with a key of its own, and an ssh_config that names another one for it."""
    key, other, config = tmp_path / "key", tmp_path / "other", tmp_path / "config"
    for file in (key, other):
        file.write_text("a key\n")
        file.chmod(0o600)
    config.write_text(f"Host *\n  IdentityFile {other}\n  IdentitiesOnly no\n")
    return Declared("css", "203.0.113.1", 22, "rch", str(key), ssh_options=("-F", str(config)))


class TestAConfiguredIdentity:
    def test_a_15_is_the_only_one_that_is_offered(self, declared, tmp_path):
        settings = ssh_settings(declared)
        assert settings.identity_files == (declared.ssh_key,)
        assert settings.identities_only
        lines = [line.strip() for line in config_file_text(settings, str(tmp_path)).splitlines()]
        assert [line for line in lines if line.startswith("Identit")] == [
            f'IdentityFile "{declared.ssh_key}"',
            "IdentitiesOnly yes",
        ]

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o666])
    def test_a_15_that_others_may_use_is_refused_with_path_and_mode(self, declared, mode):
        os.chmod(declared.ssh_key, mode)
        with pytest.raises(Refused) as caught:
            ssh_settings(declared)
        assert declared.ssh_key in caught.value.message
        assert f"{mode:04o}" in caught.value.message
        assert caught.value.hint == f"chmod 600 {declared.ssh_key}"

    @pytest.mark.parametrize("mode", [0o600, 0o400])
    def test_a_15_that_is_private_is_taken(self, declared, mode):
        os.chmod(declared.ssh_key, mode)
        assert ssh_settings(declared).identity_files == (declared.ssh_key,)

    def test_a_15_that_is_missing_is_refused(self, declared):
        os.unlink(declared.ssh_key)
        with pytest.raises(Refused, match="No such file"):
            ssh_settings(declared)

    def test_without_one_it_is_ssh_config_that_says(self, declared, tmp_path):
        settings = ssh_settings(Declared("css", "203.0.113.1", 22, "rch", ssh_options=declared.ssh_options))
        assert settings.identity_files == (str(tmp_path / "other"),)
        assert not settings.identities_only


class TestTheKeyExchange:
    def test_d_12_is_by_curve25519_alone_or_in_a_hybrid_on_the_control_plane(self):
        known = set(paramiko.Transport._kex_info)
        assert {name for name in known - set(PARAMIKOS_KEX) if "25519" not in name} == set()
        assert known - set(PARAMIKOS_KEX)
        assert all(any(fnmatch(name, pattern) for pattern in REFUSED_KEX) for name in PARAMIKOS_KEX)

    def test_d_12_is_so_for_rsync_too(self, declared, tmp_path):
        config = tmp_path / "bulk"
        config.write_text(config_file_text(ssh_settings(declared), str(tmp_path)))
        said = subprocess.run(
            ["ssh", "-F", config, "-G", "rch"], capture_output=True, text=True, check=True, timeout=30
        )
        (line,) = [line for line in said.stdout.splitlines() if line.startswith("kexalgorithms ")]
        assert line.split()[1].split(",")
        assert all("25519" in name for name in line.split()[1].split(","))
