"""Where the inventory is, what it consists of, and on which line a mistake stands."""

import os

import pytest

from rch.errors import ConfigError
from rch.fleet.inventory import check_syntax, files, find_inventory, is_dynamic, locate, stamps

HOSTS = """\
all:
  children:
    rch_workers:
      vars:
        rch_slots: 4
      hosts:
        css:
          ansible_host: 203.0.113.20
          rch_slots: eight
        yto: {ansible_host: 203.0.113.30, rch_slotz: 3}
"""


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "inventory"
    (top / "group_vars").mkdir(parents=True)
    (top / "host_vars" / "fmd").mkdir(parents=True)
    (top / "hosts.yml").write_text(HOSTS)
    (top / "group_vars" / "rch_workers.yml").write_text("---\n# comment\nrch_priority: high\n")
    (top / "host_vars" / "fmd" / "rch.yml").write_text("rch_priority: low\n")
    return top


class TestTheShapeOfAnInventory:
    """Ansible passes over what is no group with a warning, or refuses the file without a line."""

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("all:\n  childern:\n    x:\n", "2: unknown key childern in group all; did you mean children?"),
            ("rch_workers:\n  host:\n    css:\n", "2: unknown key host in group rch_workers; did you mean hosts?"),
            ("all:\n  css: {}\n", "2: unknown key css in group all; a group has hosts, children and vars"),
            ("rch_slots: 4\n", "1: group rch_slots must be a mapping: hosts, children and vars"),
            ("rch_workers:\n  hosts:\n  - css\n", "3: hosts of group rch_workers must be a mapping: NAME: {…}"),
            ("rch_workers:\n  hosts:\n    css: 3\n", "3: host css must be a mapping: its variables, "),
            (
                "all: {children: {a: {children: {b: {hsts: }}}}}\n",
                "1: unknown key hsts in group b; did you mean hosts?",
            ),
            ("- css\n", "1: an inventory must be a mapping: all: {children: "),
        ],
    )
    def test_is_told_with_its_line_where_it_is_none(self, tree, text, said):
        (tree / "hosts.yml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            check_syntax(files(stamps(str(tree))))
        assert caught.value.message.startswith(f"{tree}/hosts.yml:{said}")

    @pytest.mark.parametrize(
        "text",
        [
            "---\n",
            "all:\nungrouped:\n",
            "rch_workers:\n  hosts: css\n",
            "rch_workers: {hosts: {css: , 'w[1:3]': {}}, vars: {rch_slots: 2}, children: {gpu: }}\n",
            "plugin: ansible.builtin.constructed\nstrict: false\n",
            "x: &x\n  hosts: {css: {}}\ny:\n  <<: *x\n",
        ],
    )
    def test_may_be_all_that_ansible_takes(self, tree, text):
        (tree / "hosts.yml").write_text(text)
        check_syntax(files(stamps(str(tree))))


class TestFindingTheInventory:
    def test_prefers_the_flag_then_the_variable_then_the_users_own(self, tmp_path):
        for name in ("flag", "variable", ".config/rch/inventory"):
            (tmp_path / name).mkdir(parents=True)
        environ = {"HOME": str(tmp_path), "RCH_INVENTORY": str(tmp_path / "variable")}
        assert find_inventory(str(tmp_path / "flag"), environ) == str(tmp_path / "flag")
        assert find_inventory("", environ) == str(tmp_path / "variable")
        environ["RCH_INVENTORY"] = ""
        assert find_inventory("", environ) == str(tmp_path / ".config/rch/inventory")

    def test_honours_where_the_user_keeps_configuration(self, tmp_path):
        (tmp_path / "conf/rch/inventory").mkdir(parents=True)
        environ = {"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path / "conf")}
        assert find_inventory("", environ) == str(tmp_path / "conf/rch/inventory")

    def test_falls_back_to_the_checkouts(self, tmp_path):
        found = find_inventory("", {"HOME": str(tmp_path)})
        assert os.path.exists(os.path.join(os.path.dirname(found), "ansible.cfg"))

    @pytest.mark.parametrize("how", ["flag", "variable"])
    def test_never_passes_over_a_place_that_was_named(self, tmp_path, how):
        missing = str(tmp_path / "none")
        with pytest.raises(ConfigError) as caught:
            find_inventory(missing if how == "flag" else "", {"RCH_INVENTORY": missing, "HOME": str(tmp_path)})
        assert missing in caught.value.one_line()
        assert "\n" not in caught.value.one_line()


class TestStamps:
    def test_change_with_every_edit_addition_and_removal(self, tree):
        seen = [stamps(str(tree))]
        (tree / "group_vars" / "heavy.yml").write_text("x: 1\n")
        seen.append(stamps(str(tree)))
        (tree / "group_vars" / "heavy.yml").write_text("x: 22\n")
        seen.append(stamps(str(tree)))
        (tree / "host_vars" / "fmd" / "rch.yml").unlink()
        seen.append(stamps(str(tree)))
        assert len({tuple(one) for one in seen}) == 4

    def test_of_a_file_include_the_variables_beside_it(self, tree):
        names = {os.path.relpath(path, tree) for path in files(stamps(str(tree / "hosts.yml")))}
        assert names == {"hosts.yml", "group_vars/rch_workers.yml", "host_vars/fmd/rch.yml"}

    def test_pass_over_what_ansible_passes_over(self, tree):
        before = stamps(str(tree))
        (tree / "group_vars" / ".heavy.yml.swp").write_text("x")
        (tree / "group_vars" / "heavy.yml~").write_text("x")
        assert files(stamps(str(tree))) == files(before)

    def test_of_a_missing_inventory_are_an_error_of_one_line(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            stamps(str(tmp_path / "gone"))


class TestDynamicSources:
    def test_are_programs_and_plugin_files(self, tree):
        assert not is_dynamic(stamps(str(tree)))
        (tree / "constructed.yml").write_text("plugin: ansible.builtin.constructed\n")
        assert is_dynamic(stamps(str(tree)))
        (tree / "constructed.yml").unlink()
        (tree / "cloud.sh").write_text("#!/bin/sh\n")
        (tree / "cloud.sh").chmod(0o755)
        assert is_dynamic(stamps(str(tree)))


class TestSyntax:
    def test_of_a_good_tree_passes(self, tree):
        check_syntax(files(stamps(str(tree))))

    def test_errors_name_file_and_line(self, tree):
        (tree / "hosts.yml").write_text(HOSTS + "   - [\n")
        with pytest.raises(ConfigError) as caught:
            check_syntax(files(stamps(str(tree))))
        assert (caught.value.file, caught.value.line) == (str(tree / "hosts.yml"), 11)

    def test_a_key_given_twice_is_an_error_because_the_second_silently_wins(self, tree):
        (tree / "hosts.yml").write_text("all:\n  hosts:\n    a: {}\n  hosts:\n    b: {}\n")
        with pytest.raises(ConfigError, match=r"hosts is given twice, first on line 2") as caught:
            check_syntax(files(stamps(str(tree))))
        assert caught.value.line == 4

    def test_unknown_tags_and_encrypted_files_are_left_to_ansible(self, tree):
        (tree / "group_vars" / "all.yml").write_text("password: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  61\n")
        (tree / "group_vars" / "secret").write_text("$ANSIBLE_VAULT;1.1;AES256\n6161\n")
        check_syntax(files(stamps(str(tree))))


class TestTheLineOfAVariable:
    def where(self, tree, *question):
        file, line = locate(files(stamps(str(tree))), *question)
        return os.path.relpath(file, tree) if file else "", line

    def test_is_found_at_the_host_before_its_group(self, tree):
        assert self.where(tree, "css", ["rch_workers"], "rch_slots", "eight") == ("hosts.yml", 9)
        assert self.where(tree, "yto", ["rch_workers"], "rch_slots", 4) == ("hosts.yml", 5)

    def test_is_found_in_group_vars_and_host_vars(self, tree):
        assert self.where(tree, "css", ["rch_workers"], "rch_priority", "high") == ("group_vars/rch_workers.yml", 3)
        assert self.where(tree, "fmd", ["rch_workers"], "rch_priority", "low") == ("host_vars/fmd/rch.yml", 1)

    def test_is_found_on_one_line_with_others(self, tree):
        assert self.where(tree, "yto", ["rch_workers"], "rch_slotz", 3) == ("hosts.yml", 10)

    def test_is_found_in_an_ini_inventory(self, tmp_path):
        (tmp_path / "hosts").write_text("[rch_workers]\n# css rch_slots=1\ncss ansible_host=x rch_slots=eight\n")
        file, line = locate(files(stamps(str(tmp_path / "hosts"))), "css", ["rch_workers"], "rch_slots", "eight")
        assert (os.path.basename(file), line) == ("hosts", 3)

    def test_is_unknown_where_a_program_said_it(self, tree):
        assert self.where(tree, "css", [], "rch_user", "x") == ("", 0)
