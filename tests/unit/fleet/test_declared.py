"""The inventory's answer becomes Declared workers."""

import os
import pwd

import pytest

from rch.errors import ConfigError
from rch.fleet.declared import declare, groups_of, hosts_of, ssh_settings

LISTING = {
    "_meta": {"hostvars": {}},
    "all": {"children": ["ungrouped", "rch_workers", "heavy"]},
    "rch_workers": {"children": ["eu", "us"], "hosts": ["solo"]},
    "eu": {"hosts": ["css", "yto"]},
    "us": {"hosts": ["nyc"]},
    "heavy": {"hosts": ["css"]},
    "loop": {"children": ["loop"]},
}


class TestGroups:
    def test_a_group_holds_the_hosts_of_its_children(self):
        assert hosts_of(LISTING, "rch_workers") == ["solo", "css", "yto", "nyc"]

    def test_a_group_that_contains_itself_ends(self):
        assert hosts_of(LISTING, "loop") == []

    def test_become_tags_and_the_three_that_all_workers_share_do_not(self):
        tags = declare("css", {"rch_tags": ["gpu"]}, groups_of(LISTING)["css"]).tags
        assert tags == ("eu", "gpu", "heavy")


class TestSshArguments:
    def test_become_settings(self):
        words = """-J bastion -o ConnectTimeout=7 -oCiphers=x -C -o "Port 7" """
        assert list(ssh_settings(words)) == [
            ("ProxyJump", "bastion"),
            ("ConnectTimeout", "7"),
            ("Ciphers", "x"),
            ("Compression", "yes"),
            ("Port", "7"),
        ]

    def test_that_rch_makes_itself_are_left_out(self):
        assert list(ssh_settings("-o ControlMaster=auto -o ForwardAgent=yes -A")) == []

    @pytest.mark.parametrize("words", ["-L 1:2:3", "-D 9", "host", "-o", "-o Port", "-E log", "'"])
    def test_that_are_no_settings_are_refused(self, words):
        with pytest.raises(ConfigError, match="css: ansible_ssh_extra_args"):
            declare("css", {"ansible_ssh_extra_args": words}, [])

    def test_keep_the_known_hosts_apart_and_the_administrators_login_out(self):
        one = declare(
            "css", {"ansible_ssh_common_args": """-F none -i ~/admin -o 'UserKnownHostsFile="/k/h"' -J b"""}, []
        )
        assert one.known_hosts == "/k/h"
        assert one.ssh_options == ("-F", "none", "-o", "ProxyJump=b")


class TestAWorker:
    def test_without_variables_has_the_defaults_of_the_design(self):
        one = declare("css", {}, [])
        assert (one.host, one.user, one.cache_dir, one.priority, one.slots) == ("css", "rch", "~/.rch", 100, None)
        assert one.ssh_key is None

    def test_is_logged_in_to_as_rch_user_and_never_as_the_administrator(self):
        one = declare("css", {"ansible_user": "ubuntu", "ansible_ssh_private_key_file": "/admin"}, [])
        assert (one.user, one.ssh_key) == ("rch", None)

    def test_that_is_embedded_uses_the_account_and_key_of_the_inventory(self):
        one = declare("lab", {"rch_embedded": True, "ansible_user": "me", "ansible_ssh_private_key_file": "/k"}, [])
        assert (one.user, one.ssh_key, one.embedded) == ("me", "/k", True)
        assert declare("lab", {"rch_embedded": True}, []).user == pwd.getpwuid(os.geteuid()).pw_name

    def test_on_a_local_connection_is_run_by_the_local_executor(self):
        assert declare("here", {"ansible_connection": "ansible.builtin.local"}, []).executor == "local"

    def test_behind_another_connection_needs_an_executor_to_be_named(self):
        with pytest.raises(ConfigError, match="set rch_executor"):
            declare("css", {"ansible_connection": "containers.podman.podman"}, [])
        assert declare("css", {"ansible_connection": "docker", "rch_executor": "ssh"}, []).executor == "ssh"

    def test_has_its_keys_path_resolved_here(self):
        assert declare("css", {"rch_ssh_key": "~/k"}, []).ssh_key == os.path.expanduser("~/k")
