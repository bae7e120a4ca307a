"""Shims as programs: what they start, what they ask, and what their children find."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_rchd import FakeRchd, Peer

from rch.client_paths import SHIM_MARK, path_without_shims
from rch.daemon.wire import Frame
from rch.shims.directory import install, is_shim, status, uninstall, wanted
from rch.shims.judge import PROGRAMS
from rch.shims.program import Setting, render, usual_name

ROOT = Path(__file__).resolve().parents[3]
CLIENT = str(ROOT / "rch" / "client.py")


class TestTheRealTool:
    def test_gets_its_words_and_its_name_as_they_were(self, shimmed):
        shimmed.tool("cargo", 'printf "%s\\0" "$@"')
        words = ["fmt", "", "a b", "$HOME", ";x", "*", "'", '"', "new\nline", "é", "--", "-n"]
        assert shimmed.run(["cargo", *words]).stdout.split("\0")[:-1] == words
        # A compiled program sees argv[0] itself.
        shutil.copy("/bin/cat", os.path.join(shimmed.tools, "rustc"))
        assert shimmed.run(["rustc", "/proc/self/cmdline"]).stdout == "rustc\0/proc/self/cmdline\0"

    @pytest.mark.parametrize("code", [0, 1, 101, 255])
    def test_ends_with_its_own_status(self, shimmed, code):
        shimmed.tool("make", f"exit {code}")
        assert shimmed.run(["make", "clean"]).returncode == code

    def test_is_the_same_process_so_signals_reach_it(self, shimmed):
        shimmed.tool("make", 'echo $$; trap "exit 7" TERM; while :; do sleep 0.05; done')
        process = subprocess.Popen(
            ["make", "clean"], cwd=shimmed.project, env=shimmed.environ, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 7
        process.stdout.close()

    def test_that_is_missing_is_127(self, shimmed):
        done = shimmed.run(["zig", "version"])
        assert done.returncode == 127
        assert "not found" in done.stderr

    def test_reads_the_stdin_that_was_meant_for_it(self, shimmed):
        shimmed.tool("cargo", "cat")
        assert shimmed.run(["cargo", "fmt"], stdin=None, input="data\n").stdout == "data\n"

    def test_pm_09_finds_no_shims_and_nor_do_its_children(self, shimmed):
        shimmed.tool("make", 'echo "$PATH"; gcc x.c')
        shimmed.tool("gcc", "echo real gcc")
        path, compiler = shimmed.run(["make", "clean"]).stdout.splitlines()
        assert path == path_without_shims(shimmed.environ["PATH"])
        assert compiler == "real gcc"

    @pytest.mark.parametrize("path", ["{s}:{t}", ":{s}:{t}", "{s}:{t}:", "{t}::{s}", "{s}:{s}/:{t}", "{s}/.:{t}: :x*"])
    def test_has_the_path_that_the_client_would_give_it(self, shimmed, path):
        shimmed.tool("make", 'echo "$PATH"')
        there = path.format(s=shimmed.shims, t=shimmed.tools)
        done = shimmed.run([os.path.join(shimmed.shims, "make"), "clean"], {"PATH": there})
        assert done.stdout == path_without_shims(there) + "\n"

    def test_keeps_the_callers_variables(self, shimmed):
        shimmed.tool("cargo", "env")
        before = {**shimmed.environ, "d": "1", "IFS": ",", "A": "x y\nz"}
        env = shimmed.run(["env", "-i", *(f"{k}={v}" for k, v in before.items()), "cargo", "fmt"]).stdout
        for name in ("d=1", "A=x y\nz", f"HOME={shimmed.project}"):
            assert name in env
        assert "_rch" not in env
        assert "RCH_" not in env


class TestABuild:
    def test_is_handed_to_the_client_word_for_word(self, shimmed):
        shimmed.tool("cargo", "echo HERE")
        done = shimmed.run(["cargo", "build", "--features", "a b", "$x"])
        assert done.stdout.split("\n")[:-1] == ["ASKED", "--", "cargo", "build", "--features", "a b", "$x"]

    @pytest.mark.parametrize(
        "env",
        [
            {"RCH_BYPASS": "1"},
            {"RCH_BYPASS": "yes"},
            {"RCH_ENABLED": "0"},
            {"RCH_ENABLED": "off"},
            {"RCH_ON_WORKER": "1"},
            {"RCH_ON_WORKER": "1", "RCH_REQUIRE_REMOTE": "1"},
        ],
        ids=str,
    )
    def test_ic_08_stays_here_where_a_switch_says_so(self, shimmed, env):
        assert not shimmed.asked("cargo", "build", env=env)

    @pytest.mark.parametrize(
        "env",
        [
            {},
            {"RCH_BYPASS": "0"},
            {"RCH_ENABLED": "1"},
            {"RCH_LOCAL_ONLY": "1"},
            {"RCH_DRY_RUN": "1"},
            {"RCH_ON_WORKER": "0"},
            {"RCH_BYPASS": "1", "RCH_REQUIRE_REMOTE": "1"},
            {"RCH_BYPASS": "perhaps"},
        ],
        ids=str,
    )
    def test_ic_09_is_otherwise_the_clients_to_judge(self, shimmed, env):
        assert shimmed.asked("cargo", "build", env=env)

    def test_runs_here_when_rch_has_been_removed(self, shimmed):
        install(shimmed.shims, {"cargo": "cargo"}, Setting("/no/python", "/no/client.py"))
        assert not shimmed.asked("cargo", "build")

    def test_of_an_editor_stays_here(self, shimmed):
        assert not shimmed.asked("cargo", "check", "--workspace", "--message-format=json-diagnostic-rendered-ansi")

    @pytest.mark.parametrize(
        "line",
        [
            "time cargo build",
            "timeout 5 cargo build",
            "echo build | xargs cargo",
            "find . -maxdepth 0 -exec cargo build {} +",
            "sh -c 'cargo build'",
            "bash -lc 'true; PATH={path}; cargo build' 2>&1 | tail -5",
            'x=$(cargo build); echo "$x"',
            "cd . && FOO=1 cargo build 2>&1 | cat",
            "nice -n 1 env A=b cargo build",
        ],
    )
    def test_ic_01_reaches_the_shim_however_it_is_called(self, shimmed, line):
        shimmed.tool("cargo", "echo HERE")
        done = shimmed.run(["bash", "-c", line.replace("{path}", shimmed.environ["PATH"])])
        assert done.stdout.startswith("ASKED\n--\ncargo\nbuild\n"), done


class TestAToolCalledByABuildThatRunsHere:
    """The parents are real processes of that name, called by their path as no shim would see them."""

    @pytest.mark.parametrize("parent", ["make", "ninja", "cargo", "cmake", "configure"])
    @pytest.mark.parametrize("through", ["gcc -c x.c", "sh -c 'sh -c \"gcc -c x.c\"; true'; true"])
    def test_ic_08_is_the_real_one(self, shimmed, parent, through):
        shimmed.tool("gcc", "echo HERE")
        place = shimmed.tool(parent, through)
        assert shimmed.run([place]).stdout == "HERE\n"

    def test_is_asked_about_below_anything_else(self, shimmed):
        shimmed.tool("gcc", "echo HERE")
        place = shimmed.tool("agent", "gcc -c x.c; true")
        assert shimmed.run([place]).stdout.startswith("ASKED")

    def test_real_make_called_by_path_compiles_with_the_real_compiler(self, shimmed):
        shimmed.tool("gcc", "echo HERE")
        Path(shimmed.project, "Makefile").write_text(
            ".PHONY: all\nall: a.o b.o\n%.o:\n\t@gcc -c $*.c\n\t@echo x | gcc -c $*.c; true\n"
        )
        assert shimmed.run(["/usr/bin/make", "-j2"]).stdout.split() == ["HERE"] * 4

    def test_probes_of_configure_ask_nobody(self, shimmed):
        assert not shimmed.asked("gcc", "-o", "conftest", "-g", "-O2", "conftest.c")
        assert not shimmed.asked("cc", "--version")
        assert not shimmed.asked("cc", "-print-search-dirs")


class TestThroughTheRealClient:
    @pytest.fixture
    def real(self, shimmed):
        every = {program: name for name, programs in PROGRAMS.items() for program in programs}
        install(shimmed.shims, every, Setting(sys.executable, CLIENT, shimmed.state))
        return shimmed

    def test_make_that_would_call_gcc_50_times_is_offloaded_once_as_a_whole(self, real):
        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"built there\n"))
            peer.exit(3)

        with FakeRchd(real.state, script) as rchd:
            done = real.run(["make", "-j4"])
        assert (done.returncode, done.stdout) == (3, "built there\n")
        assert [peer.request["argv"] for peer in rchd.peers] == [["make", "-j4"]]

    def test_make_that_stays_here_asks_once_and_its_50_compilers_nobody(self, real):
        objects = " ".join(f"o{i}.o" for i in range(50))
        Path(real.project, "Makefile").write_text(f".PHONY: all\nall: {objects}\n%.o:\n\t@gcc -c $*.c -o $@\n")
        real.tool("gcc", "echo HERE")

        def script(peer: Peer) -> None:
            peer.say(Frame.LOCAL, code="no-worker", reason="no worker", hint="", slots=1, env={}, hooks={}, quiet=False)
            peer.rest()

        with FakeRchd(real.state, script) as rchd:
            done = real.run(["make", "-j4"])
        assert done.stdout.split() == ["HERE"] * 50
        assert len(rchd.peers) == 1
        assert done.stderr == "[rch] local: no-worker: no worker\n"

    def test_an_rchd_that_is_not_there_costs_one_line(self, real):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        Path(real.state, "session.json").write_text(f'{{"boot": "{boot}", "mnt": "x", "pid": "x", "user": "x"}}')
        real.tool("cargo", 'echo built here "$@"; exit 4')
        done = real.run(["cargo", "build"])
        assert (done.returncode, done.stdout) == (4, "built here build\n")
        assert done.stderr.startswith("[rch] local: ")
        assert len(done.stderr.splitlines()) == 1


class TestTheDirectory:
    def test_is_the_same_after_a_second_installation(self, shimmed):
        tools = {"cargo": "cargo", "gcc": "cc"}
        install(shimmed.shims, tools, shimmed.setting)
        before = {name: os.stat(os.path.join(shimmed.shims, name)).st_mtime_ns for name in os.listdir(shimmed.shims)}
        assert install(shimmed.shims, tools, shimmed.setting) == ([], [])
        after = {name: os.stat(os.path.join(shimmed.shims, name)).st_mtime_ns for name in os.listdir(shimmed.shims)}
        assert before == after
        assert set(before) == {"cargo", "gcc", SHIM_MARK}

    def test_is_gone_after_uninstall(self, shimmed):
        assert "make" in uninstall(shimmed.shims)
        assert not os.path.exists(shimmed.shims)
        assert uninstall(shimmed.shims) == []

    def test_loses_nothing_of_the_users(self, shimmed):
        Path(shimmed.shims, "mine").write_text("#!/bin/sh\n")
        uninstall(shimmed.shims)
        assert sorted(os.listdir(shimmed.shims)) == [SHIM_MARK, "mine"]

    def test_holds_no_tool_that_the_machine_has_not(self, shimmed):
        shimmed.tool("cargo", "")
        shimmed.tool("x86_64-linux-gnu-gcc-12", "")
        shimmed.tool("gcc-ar-12", "")
        found = wanted(f"{shimmed.shims}:{shimmed.tools}", ["cargo", "cc", "go"])
        assert found == {"cargo": "cargo", "x86_64-linux-gnu-gcc-12": "cc"}

    def test_tells_a_shim_of_yesterday(self, shimmed):
        shimmed.tool("cargo", "")
        install(shimmed.shims, {"cargo": "cargo"}, Setting("/old/python", "/old/client.py"))
        found = status(shimmed.shims, shimmed.environ["PATH"], {"cargo": "cargo", "go": "go"}, shimmed.setting)
        assert (found.stale, found.missing, found.on_path) == (("cargo",), ("go",), True)
        assert found.shims == {"cargo": os.path.join(shimmed.tools, "cargo")}
        assert is_shim(shimmed.shims, "cargo")


class TestAShimsText:
    def test_survives_strange_places(self, shimmed, tmp_path):
        strange = tmp_path / "a b'$x\"é"
        strange.mkdir()
        python = strange / "python"
        python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        python.chmod(0o700)
        client = strange / "client.py"
        client.write_text("")
        install(str(strange / "shims"), {"cargo": "cargo"}, Setting(str(python), str(client), str(strange)))
        done = shimmed.run([str(strange / "shims" / "cargo"), "build"])
        assert done.stdout.splitlines() == ["-I", "-S", str(client), "--", "cargo", "build"]

    def test_is_clean_shell(self):
        for program, name in sorted((p[0], n) for n, p in PROGRAMS.items()):
            text = render(program, name, Setting("/p/python", "/p/client.py", "/s"))
            done = subprocess.run(
                [os.path.join(os.path.dirname(sys.executable), "shellcheck"), "-s", "sh", "-"],
                input=text, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout

    def test_refuses_a_tool_that_is_no_name(self):
        with pytest.raises(ValueError, match="no name"):
            render("a;b", "cargo", Setting("/p", "/c"))


def test_the_interpreter_has_one_name_whichever_started_us(tmp_path):
    for name in ("python3", "python", "python3.11"):
        (tmp_path / name).symlink_to(sys.executable)
    (tmp_path / "pypy").write_text("another")
    usual = str(tmp_path / "python3")
    assert {usual_name(str(tmp_path / name)) for name in ("python3", "python", "python3.11")} == {usual}
    assert usual_name(str(tmp_path / "pypy")) == str(tmp_path / "pypy")
    assert usual_name("/no/such/python") == "/no/such/python"


def test_a_machine_without_a_build_tool_is_set_up_all_the_same(tmp_path):
    setting = Setting("/usr/bin/python3", "/client.py")
    install(str(tmp_path / "shims"), {}, setting)
    found = status(str(tmp_path / "shims"), "/usr/bin", {}, setting)
    assert (found.installed, found.missing, found.stale) == (True, (), ())
