"""The run here: real children, real slots, real terminals."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_rchd import FakeRchd, Peer

from rch.client_local import Slots, find_program, run_hook, wanted_slots
from rch.daemon.wire import Frame

HERE = {"RCH_LOCAL_ONLY": "1"}
CPUS = len(os.sched_getaffinity(0))


def local(**more):
    fields = {"code": "queue-timeout", "reason": "css: no free slots", "hint": "", "slots": 0, **more}
    return lambda peer: (peer.say(Frame.LOCAL, **fields), peer.rest())


class TestTheReasonLine:
    def test_ux_01_is_exactly_one_with_its_code_and_the_next_step(self, client):
        with FakeRchd(client.state, local(hint="rch queue")):
            result = client.run("--", "sh", "-c", "echo out; echo err >&2; exit 3")
        assert (result.status, result.out) == (3, b"out\n")
        assert result.err == "[rch] local: queue-timeout: css: no free slots. Fix: rch queue\nerr\n"

    def test_is_not_printed_when_quiet_was_asked_for_or_a_probe_listens(self, client):
        with FakeRchd(client.state, local()):
            assert client.run("-q", "--", "true").err == ""
            assert client.run("--", "true", env={"RCH_QUIET": "1"}).err == ""
        with FakeRchd(client.state, local(quiet=True)):
            assert client.run("--", "true").err == ""

    @pytest.mark.parametrize(
        "name", ["cc", "gcc", "g++-12", "clang", "x86_64-linux-gnu-gcc", "aarch64-linux-gnu-g++-12"]
    )
    def test_ux_03_of_a_plain_compiler_goes_to_the_log_only(self, no_start, name):
        tool = Path(no_start.project, name)
        tool.write_text("#!/bin/sh\necho probe\n")
        tool.chmod(0o755)
        result = no_start.run("--", str(tool))
        assert (result.status, result.out, result.err) == (0, b"probe\n", "")
        assert json.loads(Path(no_start.state, "log", "client.log").read_text())["code"] == "no-daemon"

    def test_cannot_steer_a_terminal(self, client):
        with FakeRchd(client.state, local(reason="a\x1b[2J\nb")):
            assert client.run("--", "true").err == "[rch] local: queue-timeout: a?[2J b\n"

    def test_ux_01_quiet_silences_the_line_and_not_the_event(self, no_start):
        no_start.run("-q", "--", "true")
        log = Path(no_start.state, "log", "client.log")
        event = json.loads(log.read_text())
        assert (event["event"], event["code"], event["command"]) == ("local", "no-daemon", ["true"])
        assert stat.S_IMODE(log.stat().st_mode) == 0o600


class TestRequireRemote:
    @pytest.mark.parametrize("words", [["--require-remote"], ["--worker", "css"], ["--on", "x"]])
    def test_hb_06_never_starts_the_local_tool(self, no_start, words):
        tripwire = os.path.join(no_start.project, "ran")
        result = no_start.run(*words, "--", "touch", tripwire)
        assert result.status == 103
        assert result.err.startswith("rch: error[NotOffloadable] no-daemon: rchd is not running")
        assert not os.path.exists(tripwire)

    @pytest.mark.parametrize("env", [{"RCH_REQUIRE_REMOTE": "1"}, {"RCH_MODE": "remote"}, {"RCH_ADDR": "css"}])
    def test_hb_06_also_by_the_environment(self, no_start, env):
        tripwire = os.path.join(no_start.project, "ran")
        assert no_start.run("--", "touch", tripwire, env=env).status == 103
        assert not os.path.exists(tripwire)

    def test_hb_06_whatever_rchd_says(self, client):
        tripwire = os.path.join(client.project, "ran")
        with FakeRchd(client.state, local()):
            result = client.run("--require-remote", "--", "touch", tripwire)
        assert result.status == 103
        assert "css: no free slots" in result.err
        assert not os.path.exists(tripwire)


class TestTheSwitches:
    def test_a_contradiction_ends_2_and_runs_nothing(self, client):
        tripwire = os.path.join(client.project, "ran")
        result = client.run("--require-remote", "--", "touch", tripwire, env={"RCH_LOCAL_ONLY": "1"})
        assert (result.status, os.path.exists(tripwire)) == (2, False)
        assert (
            result.err
            == "rch: error[UsageError] RCH_LOCAL_ONLY and --require-remote exclude each other; drop one of them\n"
        )

    def test_a_bad_value_runs_here_with_its_reason(self, client):
        result = client.run("--", "echo", "hi", env={"RCH_MODE": "cloud"})
        assert (result.status, result.out) == (0, b"hi\n")
        assert result.err == "[rch] local: bad-environment: RCH_MODE must be one of local remote mock, got 'cloud'\n"

    def test_a_usage_error_is_one_line_and_2(self, client):
        result = client.run("--frobnicate", "--", "make")
        assert result.status == 2
        assert result.err.startswith("rch: error[UsageError] unknown option '--frobnicate'")
        assert result.err.count("\n") == 1

    @pytest.mark.parametrize("env", [{"RCH_BYPASS": "1"}, {"RCH_ON_WORKER": "1"}, {"RCH_ENABLED": "0"}])
    def test_replace_us_by_the_real_tool_with_the_environment_untouched(self, client, env):
        script = "echo $$; echo $PATH; env | grep -c RCH_"
        with FakeRchd(client.state, local()) as rchd:
            process = client.start("--", "sh", "-c", script, env=env)
            out, err = process.communicate(timeout=30)
        pid, path, _ = out.decode().splitlines()
        assert (int(pid), path, err, process.returncode) == (process.pid, client.environ["PATH"], b"", 0)
        assert rchd.peers == []

    def test_bypass_and_a_job_leave_nothing_behind_and_disabled_leaves_an_event(self, client):
        for name in ("RCH_BYPASS", "RCH_ON_WORKER"):
            client.run("--", "true", env={name: "1"})
        assert os.listdir(client.state) == []
        client.run("--", "true", env={"RCH_ENABLED": "0"})
        assert json.loads(Path(client.state, "log", "client.log").read_text())["code"] == "disabled"

    def test_dry_runs_print_and_only_the_variable_runs_the_command_then(self, no_start):
        line = "[rch] dry run: local: no-daemon: rchd is not running"
        result = no_start.run("--dry-run", "--", "echo", "ran")
        assert (result.status, result.out) == (0, b"")
        assert result.err.startswith(line)
        result = no_start.run("--", "echo", "ran", env={"RCH_DRY_RUN": "1"})
        assert (result.status, result.out) == (0, b"ran\n")
        assert result.err.startswith(line)
        result = no_start.run("--require-remote", "--", "echo", "ran", env={"RCH_DRY_RUN": "1"})
        assert (result.status, result.out) == (103, b"")
        for env in ({"RCH_BYPASS": "1"}, {"RCH_ENABLED": "0"}, {"RCH_LOCAL_ONLY": "1"}):
            result = no_start.run("--dry-run", "--", "echo", "ran", env=env)
            assert (result.status, result.out, result.err.count("\n")) == (0, b"", 1)

    def test_a_dry_run_that_rchd_answers_runs_here_only_for_the_variable(self, client):
        with FakeRchd(client.state, lambda peer: peer.say(Frame.ERROR, status=0, line="would go to css")) as rchd:
            assert client.run("--dry-run", "--", "echo", "ran").out == b""
            result = client.run("--", "echo", "ran", env={"RCH_DRY_RUN": "1"})
        assert (result.out, result.err) == (b"ran\n", "would go to css\n")
        assert all(peer.request["options"]["dry_run"] for peer in rchd.peers)

    def test_a_state_directory_too_long_for_a_socket_is_named_with_its_length(self, client):
        long = f"{client.project}/" + "x" * 120
        result = client.run("--", "echo", "hi", env={"RCH_STATE_DIR": long})
        assert (result.status, result.out) == (0, b"hi\n")
        assert f"has {len(long) + len('/run/rchd.sock')} bytes, 100 are possible" in result.err
        assert client.run("--require-remote", "--", "true", env={"RCH_STATE_DIR": long}).status == 2
        assert "must be an absolute path" in client.run("--", "true", env={"RCH_STATE_DIR": "rel"}).err


class TestTheChild:
    @pytest.mark.parametrize("status", [0, 1, 2, 101, 102, 103, 126, 127, 130, 255])
    def test_gives_its_status_untouched(self, client, status):
        assert client.run("--", "sh", "-c", f"exit {status}", env=HERE).status == status

    @pytest.mark.parametrize("name", ["KILL", "SEGV", "TERM", "PIPE"])
    def test_ex_05_death_by_a_signal_is_128_and_its_number(self, client, name):
        result = client.run("--", "sh", "-c", f"kill -{name} $$", env=HERE)
        assert result.status == 128 + getattr(signal, "SIG" + name)

    def test_a_program_that_is_missing_or_cannot_run_ends_as_in_a_shell(self, client):
        result = client.run("-q", "--", "no-such-program", env=HERE)
        assert (result.status, result.err) == (127, "rch: no-such-program: command not found\n")
        Path(client.project, "data").write_text("x")
        assert client.run("-q", "--", "./data", env=HERE).status == 126
        assert client.run("-q", "--", "./absent", env=HERE).status == 127

    def test_a_script_without_an_interpreter_line_is_run_by_sh(self, client):
        path = Path(client.project, "configure")
        path.write_text('echo "$0 $1"\n')
        path.chmod(0o755)
        assert client.run("-q", "--", "./configure", "x", env=HERE).out == b"./configure x\n"
        assert client.run("--", "./configure", "x", env={"RCH_BYPASS": "1"}).out == b"./configure x\n"

    def test_ic_02_gets_its_words_byte_for_byte(self, client):
        words = [b"", b"a b", b"$HOME", b";x", b"*", b"'\"", b"line\nbreak", "é".encode(), b"\xff\xfe"]
        result = client.run("-q", "--", "printf", r"%s\0", *words, env=HERE)
        assert result.out == b"".join(word + b"\0" for word in words)

    def test_has_our_descriptors_group_umask_and_environment(self, client):
        script = "ps -o pgid= -p $$ >&2; umask; env | grep -v -e '^_=' -e '^SHLVL=' -e '^OLDPWD=' | sort"
        env = {**HERE, "ODD": "x", "LANG": "C", "PWD": client.project}
        process = client.start("-q", "--", "sh", "-c", script, env=env, umask=0o027)
        group = os.getpgid(process.pid)
        out, err = process.communicate(timeout=30)
        assert int(err) == group
        umask, *variables = out.decode().splitlines()
        assert umask == "0027"
        assert variables == sorted(f"{k}={v}" for k, v in {**client.environ, **env}.items())

    def test_dies_of_a_closed_pipe_as_without_us(self, client):
        process = client.start("-q", "--", "sh", "-c", "trap - PIPE; while :; do echo y; done", env=HERE)
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 128 + signal.SIGPIPE

    def test_ic_08_finds_no_shim_and_hands_on_a_path_without_shims(self, client):
        shims = Path(client.project, "shims")
        shims.mkdir()
        (shims / ".rch-shims").touch()
        (shims / "ls").write_text("#!/bin/sh\necho shim\n")
        (shims / "ls").chmod(0o755)
        path = f"{shims}:{client.environ['PATH']}"
        result = client.run("-q", "--", "sh", "-c", "ls; echo $PATH", env={**HERE, "PATH": path})
        assert result.out.decode().splitlines()[-1] == client.environ["PATH"]
        assert b"shim\n" not in result.out.replace(b"shims\n", b"")

    def test_gets_signals_that_were_sent_to_us_alone(self, client):
        script = "trap 'echo got TERM; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
        process = client.start("-q", "--", "sh", "-c", script, env=HERE)
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
        assert (process.returncode, out) == (9, b"got TERM\n")

    def test_gets_a_ctrl_c_of_the_terminal_once(self, client):
        counts = (
            "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); print('ready', flush=True)\n"
            "hits = 0\n"
            "while signal.sigtimedwait([signal.SIGINT], 1): hits += 1\n"
            "print('hits', hits); raise SystemExit(5)"
        )
        terminal = client.on_tty(["-q", "--", sys.executable, "-c", counts], HERE)
        terminal.read_until(b"ready")
        time.sleep(0.2)
        terminal.type(b"\x03")
        assert os.waitstatus_to_exitcode(terminal.end()) == 5
        assert b"hits 1\r\n" in terminal.shown
        terminal.close()

    def test_that_dies_of_ctrl_c_makes_us_die_of_it_too(self, client):
        # Not sh: one in ten loses a Ctrl-C between its echo and its sleep, also without us.
        die = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); print('ready', flush=True); time.sleep(20)"
        terminal = client.on_tty(["-q", "--", sys.executable, "-c", die], HERE)
        terminal.read_until(b"ready")
        terminal.type(b"\x03")
        assert os.waitstatus_to_exitcode(terminal.end()) == -signal.SIGINT
        terminal.close()

    def test_stops_and_goes_on_with_its_group(self, client):
        process = client.start(
            "-q",
            "--",
            "sh",
            "-c",
            "echo ready; read x; echo $x",
            env=HERE,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGCONT)
        out, _ = process.communicate(b"on\n", timeout=20)
        assert (process.returncode, out) == (0, b"on\n")

    def test_rchd_hears_of_its_start_and_end_and_sets_variables(self, client):
        with FakeRchd(client.state, local(env={"CARGO_TERM_COLOR": "never"})) as rchd:
            result = client.run("-q", "--", "sh", "-c", "echo $CARGO_TERM_COLOR; exit 3")
            rchd.wait()
        assert result.out == b"never\n"
        (first, _), (second, done) = rchd.peers[0].seen
        assert (first, second) == (Frame.LOCAL_STARTED, Frame.LOCAL_DONE)
        assert done["status"] == 3
        assert 0 <= done["duration_ms"] < 60_000

    def test_runs_on_when_rchd_dies_meanwhile(self, client):
        with FakeRchd(client.state, lambda peer: peer.say(Frame.LOCAL, code="x", reason="y", slots=0)):
            assert client.run("-q", "--", "sh", "-c", "sleep 0.3; exit 8").status == 8


class TestAfterARemoteSuccess:
    def test_run_locally_starts_the_command_here_without_slots_or_a_line(self, client):
        def script(peer: Peer) -> None:
            peer.accept(stdin=False)
            peer.log((2, b"built\n"))
            peer.exit(0, run_locally="then-here")

        with FakeRchd(client.state, script):
            result = client.run("--", "sh", "-c", "cat; exit 7", data=b"for the program")
        assert (result.status, result.out, result.err) == (7, b"for the program", "built\n")


class TestSlots:
    def test_hb_06_what_exceeds_this_machine_waits(self, client):
        marks = os.path.join(client.project, "marks")
        script = f"echo + >>{marks}; sleep 0.3; echo - >>{marks}"
        with FakeRchd(client.state, local(slots=CPUS)):
            running = [client.start("-q", "--", "sh", "-c", script) for _ in range(3)]
            assert [process.wait(60) for process in running] == [0, 0, 0]
        assert Path(marks).read_text().split() == ["+", "-"] * 3

    def test_small_runs_share_this_machine(self, client):
        if CPUS < 2:
            pytest.skip("needs two CPUs, as the CI machine has")
        with FakeRchd(client.state, local(slots=1)):
            first = client.start("-q", "--", "sh", "-c", "echo up; read x", stdin=subprocess.PIPE)
            assert first.stdout.readline() == b"up\n"
            assert client.run("-q", "--", "echo", "beside").out == b"beside\n"
            first.communicate(b"\n", 20)

    def test_sq_09_what_the_command_leaves_behind_holds_none(self, client):
        with FakeRchd(client.state, local(slots=CPUS)):
            script = "setsid sleep 30 >/dev/null 2>&1 & echo $!"
            left = int(client.run("-q", "--", "sh", "-c", script).out)
            try:
                assert client.run("-q", "--", "echo", "next").out == b"next\n"
            finally:
                os.kill(left, signal.SIGKILL)

    def test_a_killed_client_gives_them_back(self, client):
        with FakeRchd(client.state, local(slots=CPUS)):
            first = client.start("-q", "--", "sh", "-c", "echo $$; exec sleep 30")
            child = int(first.stdout.readline())
            first.kill()
            first.wait(10)
            try:
                assert client.run("-q", "--", "echo", "next").out == b"next\n"
            finally:
                os.kill(child, signal.SIGKILL)

    def test_a_run_inside_a_run_does_not_wait_for_itself(self, client):
        inner = [
            sys.executable,
            "-I",
            "-S",
            str(Path(__file__).resolve().parents[3] / "rch" / "client.py"),
            "-q",
            "--",
            "echo",
            "inner",
        ]
        with FakeRchd(client.state, local(slots=CPUS)):
            assert client.run("-q", "--", "sh", "-c", '"$@"', "sh", *inner).out == b"inner\n"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_gives_up_the_wait(self, client, number):
        with FakeRchd(client.state, local(slots=CPUS)):
            holder = client.start("-q", "--", "sh", "-c", "echo up; read x", stdin=subprocess.PIPE)
            assert holder.stdout.readline() == b"up\n"
            waiting = [
                client.start("-q", "--", "echo", "never") for _ in range(2)
            ]  # one at the slots, one at the ticket
            for process in waiting:
                wait_for_lock(process.pid)
            for process in waiting:
                process.send_signal(number)
            assert [process.wait(20) for process in waiting] == [128 + number] * 2
            assert [process.stdout.read() for process in waiting] == [b"", b""]
            holder.communicate(b"\n", 20)

    def test_a_terminal_sees_why_it_waits(self, client):
        with FakeRchd(client.state, local(slots=CPUS)):
            holder = client.start("-q", "--", "sh", "-c", "echo up; read x", stdin=subprocess.PIPE)
            assert holder.stdout.readline() == b"up\n"
            terminals = [client.on_tty(["--", "echo", "ran"]) for _ in range(2)]
            for terminal in terminals:
                terminal.read_until(f"waiting for {CPUS} of {CPUS} CPUs here".encode())
            holder.communicate(b"\n", 20)
            for terminal in terminals:
                assert os.waitstatus_to_exitcode(terminal.end()) == 0
                assert terminal.shown.count(b"waiting") == 1
                terminal.close()

    def test_are_no_obstacle_where_the_state_directory_cannot_be_used(self, client):
        Path(client.state, "local-slots").write_text("not a directory")
        assert client.run("-q", "--", "echo", "hi", env=HERE).out == b"hi\n"

    def test_read_only_files_are_enough_to_wait_in_line(self, tmp_path):
        place = tmp_path / "local-slots"
        place.mkdir()
        for name in ("ticket", *map(str, range(CPUS))):
            (place / name).touch(0o400)
        slots = Slots()
        slots.take(str(tmp_path), CPUS, lambda _wanted, _total: None)
        assert len(slots._held) == CPUS
        slots.release()

    @pytest.mark.parametrize(
        ("words", "wanted"),
        [
            ("cargo build", 4), ("cargo build -j 2", 2), ("cargo build -j3", 3), ("cargo build --jobs=6", 6),
            ("make -j", 4), ("make -j8 all", 8), ("cmake --build b --parallel 5", 5), ("/usr/bin/gcc -c x.c", 1), ("rustc x.rs", 1),
        ],
    )  # fmt: skip
    def test_without_an_estimate_are_what_the_command_says(self, words, wanted):
        assert wanted_slots(words.split()) == wanted


class TestHooks:
    def test_on_fallback_runs_before_the_command_in_the_root_with_its_output_on_stderr(self, client):
        sub = Path(client.project, "sub")
        sub.mkdir()

        def script(peer: Peer) -> None:
            peer.say(Frame.PROVE, root=client.project, nonce=".rch-proof-0123456789abcdef")
            peer.until(Frame.PROOF)
            peer.say(Frame.PROVED, root=client.project)
            peer.say(Frame.LOCAL, code="x", reason="y", slots=0, hooks={"on_fallback": "echo hook; pwd; false"})
            peer.rest()

        with FakeRchd(client.state, script):
            result = client.run("--", "sh", "-c", "echo run; exit 2", cwd=str(sub))
        assert (result.status, result.out) == (2, b"run\n")
        assert result.err.splitlines() == [
            "[rch] local: x: y",
            "hook",
            client.project,
            "[rch] hook on_fallback ended with status 1",
        ]

    def test_post_compile_sees_the_status_and_does_not_change_it(self, client):
        script = lambda peer: (peer.accept(), peer.exit(5, post_compile="echo was $RCH_EXIT_STATUS; exit 1"))  # noqa: E731
        with FakeRchd(client.state, script):
            result = client.run("--", "make")
        assert (result.status, result.out) == (5, b"")
        assert result.err == "was 5\n[rch] hook post_compile ended with status 1\n"

    def test_pre_transfer_is_answered_with_its_status(self, client):
        answers: list[object] = []

        def script(peer: Peer) -> None:
            for command in ("exit 0", "echo generating; exit 7"):
                peer.say(Frame.HOOK, name="pre_transfer", command=command, cwd=client.project)
                answers.append(peer.until(Frame.HOOK_DONE))
            peer.accept()
            peer.exit(0)

        with FakeRchd(client.state, script):
            assert client.run("--", "make").err == "generating\n"
        assert answers == [
            {"name": "pre_transfer", "status": 0, "problem": ""},
            {"name": "pre_transfer", "status": 7, "problem": "ended with status 7"},
        ]

    def test_a_signal_ends_the_hook_and_the_command(self, client):
        pid = os.path.join(client.project, "pid")

        def script(peer: Peer) -> None:
            peer.say(
                Frame.HOOK,
                name="pre_transfer",
                command=f"echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 60",
                cwd=client.project,
            )
            peer.rest()

        with FakeRchd(client.state, script):
            process = client.start("--", "make")
            wait_for(pid)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        assert not alive(int(Path(pid).read_text()))

    def test_at_the_limit_everything_that_it_started_is_killed(self, tmp_path):
        command = f"setsid sh -c 'echo $$ >{tmp_path}/far; sleep 60' & echo $$ >{tmp_path}/near; sleep 60"
        begun = time.monotonic()
        status, problem = run_hook(command, str(tmp_path), os.environb, limit_s=1.0)
        assert (status, problem) == (124, "did not end within 1 s and was killed")
        assert time.monotonic() - begun < 20
        assert not alive(int((tmp_path / "near").read_text()))
        assert not alive(int((tmp_path / "far").read_text()))

    def test_reads_nothing_of_the_callers_stdin(self, client):
        with FakeRchd(client.state, local(hooks={"on_fallback": "cat"})):
            assert client.run("-q", "--", "cat", data=b"mine").out == b"mine"


def wait_for(path: str) -> None:
    until = time.monotonic() + 20
    while not os.path.exists(path):
        assert time.monotonic() < until
        time.sleep(0.01)


def wait_for_lock(pid: int) -> None:
    """Until *pid* holds a lock or waits for one."""
    until = time.monotonic() + 20
    while not any(str(pid) in line.split() for line in Path("/proc/locks").read_text().splitlines()):
        assert time.monotonic() < until
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


class TestFindingAProgram:
    def test_goes_through_the_path_as_a_shell_does(self, tmp_path):
        for name, mode in (("one", 0o644), ("two", 0o755)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "tool").write_text("")
            (tmp_path / name / "tool").chmod(mode)
        one, two = os.fsencode(tmp_path / "one"), os.fsencode(tmp_path / "two")
        assert find_program("tool", {b"PATH": one + b":" + two}) == (two + b"/tool", 0)
        assert find_program("tool", {b"PATH": one}) == (b"", 126)
        assert find_program("tool", {b"PATH": b"/nowhere"}) == (b"", 127)
        assert find_program("one", {b"PATH": os.fsencode(tmp_path)}) == (b"", 127)
