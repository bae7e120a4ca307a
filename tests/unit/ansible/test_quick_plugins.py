"""plugins/action: what the quick ones do is what the builtin ones do, and they send a module only for work."""

import getpass
import grp
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
PLUGINS = ("quick_command", "quick_file")
pytestmark = pytest.mark.slow
ME = getpass.getuser()
MINE = grp.getgrgid(os.getgid()).gr_name


@pytest.fixture
def play(run, tmp_path):
    """A function: tasks and further words -> the finished process; ``said`` is what each registered task got."""

    def start(*tasks, words=(), **environ):
        shown = [
            {"ansible.builtin.debug": {"msg": f"{{{{ 'GOT ' ~ (got{number} | to_json) }}}}"}}
            for number in range(len(tasks))
        ]
        registered = [{"name": "A task", "register": f"got{number}", **task} for number, task in enumerate(tasks)]
        (tmp_path / "play.yml").write_text(
            yaml.safe_dump(
                [{"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": registered + shown}]
            )
        )
        places = {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
        done = run(str(tmp_path / "play.yml"), "-vvv", "--inventory", "localhost,", *words, **places, **environ)
        decoder = json.JSONDecoder()
        texts = [
            decoder.raw_decode(line.split(": ", 1)[1])[0] for line in done.stdout.splitlines() if '"msg": "GOT ' in line
        ]
        done.said = [json.loads(text.removeprefix("GOT ")) for text in texts]
        parts = done.stdout.split("TASK [")[1 : len(tasks) + 1]
        done.sent = [re.findall(r"(?m)^Using module file .*/(\w+)[.]py$", part) for part in parts]
        return done

    return start


def command(*argv, **more):
    return {"quick_command": {"argv": list(argv), **more}}


class TestQuickCommand:
    def test_gives_back_status_and_both_outputs_and_sends_no_module(self, play):
        done = play(command("sh", "-c", "echo one; echo two; echo three >&2"))
        assert done.sent == [[]]
        (got,) = done.said
        assert (got["rc"], got["stdout"], got["stderr"]) == (0, "one\ntwo", "three")
        assert got["stdout_lines"] == ["one", "two"]
        assert got["changed"]

    def test_gives_every_word_as_it_is(self, play):
        words = ["a b", "$HOME", "'", '"', "*", "", "\\", ";id", "été"]
        done = play(command(sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *words))
        assert json.loads(done.said[0]["stdout"]) == words

    def test_reads_what_it_is_given_and_nothing_otherwise(self, play):
        done = play(command("cat", stdin="some text"), command("cat"))
        assert [got["stdout"] for got in done.said] == ["some text", ""]

    def test_runs_in_a_directory_with_the_tasks_environment(self, play, tmp_path):
        place = tmp_path / "a place"
        place.mkdir()
        task = command("sh", "-c", 'pwd; printf %s "$GREETING"', chdir=str(place))
        done = play({**task, "environment": {"GREETING": "good day"}})
        assert done.said[0]["stdout_lines"] == [str(place), "good day"]

    def test_fails_with_the_commands_status(self, play):
        rows = [(["sh", "-c", "exit 7"], 7), (["/no/such/program"], 127)]
        done = play(*({**command(*argv), "ignore_errors": True} for argv, _ in rows))
        assert [(got["failed"], got["rc"]) for got in done.said] == [(True, status) for _, status in rows]

    def test_does_nothing_in_check_mode_unless_told(self, play, tmp_path):
        done = play(
            command("touch", str(tmp_path / "one")),
            {**command("touch", str(tmp_path / "two")), "check_mode": False},
            words=["--check"],
        )
        assert done.said[0]["skipped"]
        assert not (tmp_path / "one").exists()
        assert (tmp_path / "two").exists()

    def test_refuses_what_it_does_not_know(self, play):
        rows = [{"argv": "ls -l"}, {"argv": []}, {"argv": ["ls"], "creates": "/x"}]
        done = play(*({"quick_command": arguments, "ignore_errors": True} for arguments in rows))
        assert [got["failed"] for got in done.said] == [True] * len(rows)


class TestQuickFile:
    """Each row: what lies there, the task, whether that is work."""

    @staticmethod
    def file(path, mode="0640", **more):
        return {"quick_file": {"path": str(path), "owner": ME, "group": MINE, "mode": mode, **more}}

    def once(self, play, task, modules):
        """The task where it is work, in check mode and for good, and where it is not."""
        looked = play(task, words=["--check"])
        assert (looked.said[0]["changed"], looked.returncode) == (True, 0)
        # What we call as wanted has to be so for the builtin one as well.
        done = play(task, task, self.as_builtin(task))
        assert [got["changed"] for got in done.said] == [True, False, False]
        assert (set(done.sent[0]), done.sent[1]) == (modules, [])

    @staticmethod
    def as_builtin(task):
        given = dict(task["quick_file"])
        if given.get("state", "file") != "file":
            return {"ansible.builtin.file": given}
        given.pop("state", None)
        return {"ansible.builtin.copy": {"dest": given.pop("path"), **given}}

    def test_makes_a_directory(self, play, tmp_path):
        self.once(play, self.file(tmp_path / "new", "0750", state="directory"), {"file"})
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o750

    def test_writes_a_content(self, play, tmp_path):
        self.once(play, self.file(tmp_path / "new", content="été\n"), {"copy", "stat"})
        assert (tmp_path / "new").read_text() == "été\n"
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640

    def test_copies_a_file(self, play, tmp_path):
        (tmp_path / "source").write_bytes(bytes(range(256)))
        self.once(play, self.file(tmp_path / "new", src=str(tmp_path / "source")), {"copy", "stat"})
        assert (tmp_path / "new").read_bytes() == bytes(range(256))

    def test_makes_a_link(self, play, tmp_path):
        (tmp_path / "there").write_text("")
        task = self.file(tmp_path / "new", src="there", state="link", follow=False)
        del task["quick_file"]["mode"]
        self.once(play, task, {"file"})
        assert os.readlink(tmp_path / "new") == "there"
        (tmp_path / "new").unlink()
        (tmp_path / "new").symlink_to("elsewhere")
        followed = {"quick_file": {k: v for k, v in task["quick_file"].items() if k != "follow"}}
        done = play(task, task, followed)
        assert [got["changed"] for got in done.said] == [True, False, False]
        assert done.sent == [["file"], [], ["file"]]  # a link's own attributes or its target's: the module knows
        assert os.readlink(tmp_path / "new") == "there"

    def test_removes_what_should_not_be_there(self, play, tmp_path):
        (tmp_path / "old" / "deep").mkdir(parents=True)
        self.once(play, {"quick_file": {"path": str(tmp_path / "old"), "state": "absent"}}, {"file"})
        assert not (tmp_path / "old").exists()

    @pytest.mark.parametrize(
        "damage",
        [
            "echo other >$1",
            "chmod 600 $1",
            "chmod 4640 $1",
            "mv $1 $1.moved && ln -s $1.moved $1",
            "rm $1",
        ],
        ids=["content", "mode", "special mode", "a link in its place", "gone"],
    )
    def test_sees_that_a_file_is_not_as_it_should_be(self, play, tmp_path, damage):
        path = tmp_path / "a 'strange' $name"
        task = self.file(path, content="text\n")
        done = play(task, task, command("sh", "-c", damage.replace("$1", '"$1"'), "sh", str(path)), task)
        assert [got["changed"] for got in done.said] == [True, False, True, True]
        assert path.read_text() == "text\n"
        assert stat.S_IMODE(path.lstat().st_mode) == 0o640
        assert not path.is_symlink()

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away; CI runs as root")
    def test_sees_another_owner_and_group(self, play, tmp_path):
        path = tmp_path / "file"
        task = self.file(path, content="text\n")
        done = play(task, command("chown", "65534", str(path)), task, command("chgrp", "65534", str(path)), task)
        assert [got["changed"] for got in done.said] == [True] * 5
        assert (path.owner(), path.group()) == (ME, MINE)

    def test_leaves_a_link_to_a_directory_to_the_module(self, play, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "new").symlink_to("real")
        done = play(self.file(tmp_path / "new", "0755", state="directory"))
        assert done.sent == [["file"]]
        assert (tmp_path / "new").is_symlink()

    def test_asks_a_validation_before_it_replaces_anything(self, play, tmp_path):
        (tmp_path / "script").write_text("echo good\n")
        done = play(self.file(tmp_path / "script", content="if\n", validate="sh -n %s"))
        assert done.returncode == 2
        assert (tmp_path / "script").read_text() == "echo good\n"

    def test_refuses_what_it_does_not_know(self, play):
        rows = [
            {"path": "/x"},
            {"path": "/x", "content": "a", "src": "b"},
            {"path": "/x", "state": "touch"},
            {"state": "directory"},
            {"path": "/x", "state": "directory", "recurse": True},
        ]
        done = play(*({"quick_file": arguments, "ignore_errors": True} for arguments in rows))
        assert [got["failed"] for got in done.said] == [True] * len(rows)
        assert all(re.match("quick_file (needs|does not know) ", got["msg"]) for got in done.said)


@pytest.mark.parametrize("name", PLUGINS)
def test_is_documented_for_ansible(name, tmp_path):
    program = Path(sys.executable).with_name("ansible-doc")
    env = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_HOME": str(tmp_path)}
    done = subprocess.run([program, "-j", name], env=env, capture_output=True, text=True, timeout=60, check=True)
    page = json.loads(done.stdout)[name]
    assert page["doc"]["short_description"]
    assert page["return"]
