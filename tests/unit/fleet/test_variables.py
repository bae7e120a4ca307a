"""Registry variables are literals with a schema."""

import pytest

from rch.fleet.variables import VARIABLES, check_host


def findings(**variables):
    return [finding.message for finding in check_host("css", variables)]


class TestAValueOfTheRightType:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("rch_slots", 1),
            ("rch_slots", 1024),
            ("rch_slots_per_core", 0.5),
            ("rch_slots_per_core", 2),
            ("rch_priority", 0),
            ("rch_enabled", False),
            ("rch_cache_dir", "~/.rch"),
            ("rch_cache_dir", "/var/cache/rch"),
            ("rch_executor", "mock"),
            ("rch_user", "build-01"),
            ("rch_ssh_key", "~/.ssh/id of rch"),
            ("rch_tags", ["gpu", "zone:eu-1"]),
            ("rch_tags", []),
            ("rch_description", "die grüne Maschine, Regal 4"),
            ("rch_addr", "unix:///run/rch.sock"),
            ("rch_tunnel", "off"),
            ("ansible_host", "2001:db8::7"),
            ("ansible_port", 2222),
            ("ansible_user", "ubuntu"),
        ],
    )
    def test_is_accepted(self, name, value):
        assert findings(**{name: value}) == []


class TestAWrongValue:
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("rch_slots", "eight", 'css: rch_slots must be a whole number from 1 to 1024, got "eight"'),
            ("rch_slots", "8", 'css: rch_slots must be a whole number from 1 to 1024, got "8"'),
            ("rch_slots", 0, "css: rch_slots must be a whole number from 1 to 1024, got 0"),
            ("rch_slots", True, "css: rch_slots must be a whole number from 1 to 1024, got True"),
            ("rch_slots", 2.0, "css: rch_slots must be a whole number from 1 to 1024, got 2.0"),
            ("rch_slots", None, "css: rch_slots must be a whole number from 1 to 1024, got None"),
            ("rch_slots_per_core", float("nan"), "css: rch_slots_per_core must be a number from 0.05 to 16, got nan"),
            ("rch_enabled", "yes", 'css: rch_enabled must be true or false, got "yes"'),
            ("rch_executor", "shh", 'css: rch_executor must be one of ssh, local, mock, got "shh"'),
            ("rch_user", "-o", 'css: rch_user must be the name of an account, got "-o"'),
            ("rch_tags", "gpu", 'css: rch_tags must be a list of words of letters, digits and _ . : -, got "gpu"'),
            (
                "ansible_host",
                "-oProxyCommand=x",
                'css: ansible_host must be a host name or an address, got "-oProxyCommand=x"',
            ),
            ("ansible_port", 65536, "css: ansible_port must be a whole number from 1 to 65535, got 65536"),
        ],
    )
    def test_is_named_with_host_variable_and_what_it_must_be(self, name, value, message):
        assert findings(**{name: value}) == [message]

    @pytest.mark.parametrize(
        "path",
        ["/", "~", "~/", "rel/ative", "/tmp", "/..", "/../x", "~/..", "~/a/../b", "/a b/c", "/a/$(x)", "/a/b\n", ""],
    )
    def test_keeps_the_cache_directory_a_plain_path_of_its_own(self, path):
        assert len(findings(rch_cache_dir=path)) == 1

    @pytest.mark.parametrize("value", ["{{ other }}", "x{% if y %}", "{# z #}"])
    def test_pd_06_may_not_be_a_template(self, value):
        assert "is a template" in findings(rch_description=value)[0]

    def test_may_not_be_encrypted(self):
        assert "encrypted" in findings(rch_user={"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256\n61"})[0]


class TestAnUnknownVariable:
    def test_pd_02_is_refused_with_the_nearest_known_name(self):
        assert findings(rch_slotz=3) == ["css: unknown registry variable rch_slotz; did you mean rch_slots?"]

    def test_is_refused_without_a_guess_where_nothing_is_near(self):
        assert findings(rch_qqqqqqqq=3) == ["css: unknown registry variable rch_qqqqqqqq"]

    def test_of_somebody_else_is_none_of_our_business(self):
        assert findings(http_port="{{ x }}", ansible_become_password="s", rch_worker_version="") == []


def test_every_variable_of_the_design_has_an_entry():
    named = [
        "rch_slots",
        "rch_slots_per_core",
        "rch_priority",
        "rch_enabled",
        "rch_cache_dir",
        "rch_executor",
        "rch_user",
        "rch_ssh_key",
        "rch_tags",
        "rch_session",
        "rch_workdir",
        "rch_platform",
        "rch_description",
        "rch_addr",
        "rch_tunnel",
        "rch_embedded",
    ]
    assert [name for name in VARIABLES if name.startswith("rch_")] == named
