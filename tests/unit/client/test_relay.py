"""The exchange with rchd, by real processes over a real socket: bytes, signals, endings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_rchd import FakeRchd, Peer

from rch.daemon.wire import Frame


class TestARemoteCommand:
    def test_ends_with_the_status_and_the_bytes_of_the_job_on_the_right_streams(self, client):
        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"one \xff\x00"), (2, b"two"), (1, b"three, no newline"))
            peer.exit(42)

        with FakeRchd(client.state, script):
            result = client.run("--", "make", "all")
        assert (result.status, result.out, result.err) == (42, b"one \xff\x00three, no newline", "two")

    def test_passes_reserved_and_odd_statuses_on_untouched(self, client):
        for status in (0, 1, 101, 102, 139, 255):
            with FakeRchd(client.state, lambda peer, status=status: (peer.accept(), peer.exit(status))):
                assert client.run("--", "make").status == status

    def test_tells_rchd_what_the_caller_typed_and_who_it_is(self, client):
        words = [
            "printf",
            "%s",
            "",
            "a b",
            "$HOME",
            ";x",
            "*",
            "'\"",
            "line\nbreak",
            "é",
            b"\xff".decode("utf-8", "surrogateescape"),
        ]
        with FakeRchd(client.state, lambda peer: peer.exit(0)) as rchd:
            client.run("--", *words, env={"SOME": "v\udcfe", "PWD": "/elsewhere"}, umask=0o027)
        request = rchd.peers[0].request
        assert request["argv"] == words
        assert request["env"]["SOME"] == "v\udcfe"
        assert request["cwd"] == os.path.realpath(client.project)
        assert request["fds"] == {"0": "null", "1": "pipe", "2": "pipe", "same": False}
        assert (request["uid"], request["gid"], request["umask"]) == (os.getuid(), os.getgid(), 0o027)
        assert request["attach"] is None

    def test_keeps_a_working_directory_typed_through_a_link(self, client):
        link = client.project + "-link"
        os.symlink(client.project, link)
        with FakeRchd(client.state, lambda peer: peer.exit(0)) as rchd:
            client.run("--", "make", cwd=link, env={"PWD": link})
        assert rchd.peers[0].request["cwd"] == link

    def test_does_not_send_the_locale_that_the_interpreter_made_up(self, client):
        with FakeRchd(client.state, lambda peer: peer.exit(0)) as rchd:
            client.run("--", "make", env={"LANG": "C"})
        assert "LC_CTYPE" not in rchd.peers[0].request["env"]

    def test_os_03_puts_characters_together_that_were_cut_between_chunks(self, client):
        text = "żółw 🦀 ".encode() * 2000

        def script(peer: Peer) -> None:
            peer.accept()
            for start in range(0, len(text), 777):
                peer.log((1, text[start : start + 777]))
            peer.exit(0)

        with FakeRchd(client.state, script):
            assert client.run("--", "make").out == text

    def test_ux_03_writes_nothing_of_its_own_when_all_is_well(self, client):
        with FakeRchd(client.state, lambda peer: (peer.accept(), peer.log((2, b"warning\n")), peer.exit(0))):
            result = client.run("--", "make")
        assert (result.out, result.err) == (b"", "warning\n")

    def test_shows_notes_unless_it_is_to_be_quiet_and_lets_none_steer_the_terminal(self, client):
        def script(peer: Peer) -> None:
            peer.transport.send(Frame.NOTE, b"[rch] css: \x1b[2Jwarm\nsecond")
            peer.exit(0)

        with FakeRchd(client.state, script):
            assert client.run("--", "make").err == "[rch] css: ?[2Jwarm second\n"
            assert client.run("-q", "--", "make").err == ""

    def test_prints_an_error_of_rchd_and_ends_with_its_status(self, client):
        def script(peer: Peer) -> None:
            peer.say(Frame.ERROR, status=103, line="rch: error[NotOffloadable] css: drained")

        with FakeRchd(client.state, script):
            result = client.run("--require-remote", "--", "make")
        assert (result.status, result.err) == (103, "rch: error[NotOffloadable] css: drained\n")

    def test_prints_the_message_of_an_undelivered_build(self, client):
        def script(peer: Peer) -> None:
            peer.accept()
            peer.say(
                Frame.EXIT, status=102, signal=None, job="j-1", products="undelivered", message="rch: error[X] lost"
            )

        with FakeRchd(client.state, script):
            result = client.run("-q", "--", "make")
        assert (result.status, result.err) == (102, "rch: error[X] lost\n")

    def test_drops_what_is_meant_for_a_closed_descriptor(self, client):
        with FakeRchd(client.state, lambda peer: (peer.accept(), peer.log((1, b"x")), peer.exit(3))) as rchd:
            process = subprocess.run(
                ["sh", "-c", 'exec "$@" 1>&-', "sh", *client_words("--", "make")],
                env=client.environ, cwd=client.project, stderr=subprocess.PIPE, timeout=60, check=False,
            )  # fmt: skip
        assert (process.returncode, process.stderr) == (3, b"")
        assert rchd.peers[0].request["fds"]["1"] == "closed"

    def test_says_how_it_ended_as_json_when_asked(self, client):
        import json

        with FakeRchd(client.state, lambda peer: (peer.accept(), peer.exit(5))):
            result = client.run("--json", "--", "make")
        assert json.loads(result.err) == {"job": "j-1", "where": "css", "reason": "", "status": 5}


def client_words(*words: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve().parents[3] / "rch" / "client.py"), *words]


class TestTheDescriptors:
    def fds(self, client, redirection: str, **how) -> dict:
        with FakeRchd(client.state, lambda peer: peer.exit(0)) as rchd:
            subprocess.run(
                ["sh", "-c", f'exec "$@" {redirection}', "sh", *client_words("--", "make")],
                env=client.environ, cwd=client.project, timeout=60, check=True, **how,
            )  # fmt: skip
        return rchd.peers[0].request["fds"]

    def test_os_09_knows_when_both_outputs_are_one_open_file(self, client):
        assert self.fds(client, ">log 2>&1")["same"] is True
        assert self.fds(client, ">>log 2>&1")["same"] is True
        assert self.fds(client, "2>&1 | cat")["same"] is True
        assert self.fds(client, ">/dev/null 2>&1")["same"] is True

    def test_two_openings_of_one_file_are_not_one_open_file(self, client):
        assert self.fds(client, ">log 2>log")["same"] is False
        assert self.fds(client, ">log 2>log.err")["same"] is False

    def test_names_the_nature_of_each(self, client):
        fds = self.fds(client, "<&- >log 2>/dev/null")
        assert fds == {"0": "closed", "1": "file", "2": "null", "same": False}
        fds = self.fds(client, "</dev/zero 2>&1 | cat", stdin=subprocess.DEVNULL)
        assert (fds["0"], fds["1"]) == ("pipe", "pipe")


class TestAReaderThatLeaves:
    def test_ex_03_ends_us_by_sigpipe_and_cancels_the_job(self, client):
        def script(peer: Peer) -> None:
            peer.accept()
            for _ in range(200):
                try:
                    peer.log((1, b"line\n" * 1000))
                except OSError:
                    break
            peer.rest()

        with FakeRchd(client.state, script) as rchd:
            process = client.start("--", "make")
            assert process.stdout.read(5) == b"line\n"
            process.stdout.close()
            assert process.wait(20) == -signal.SIGPIPE
            rchd.wait()
        assert (Frame.SIGNAL, {"signal": "cancel"}) in rchd.peers[0].seen

    def test_a_full_disk_is_an_error_and_never_a_success(self, client):
        with FakeRchd(
            client.state, lambda peer: (peer.accept(), peer.log((1, b"x")), peer.exit(0), peer.rest())
        ) as rchd:
            with open("/dev/full", "wb") as full:
                result = client.run("--", "make", stdout=full)
            rchd.wait()
        assert result.status == 1
        assert result.err.startswith("rch: error[DiskFull] here: stdout cannot be written")

    def test_a_slow_reader_gets_everything_through_a_nonblocking_pipe(self, client):
        data = os.urandom(1 << 20)

        def script(peer: Peer) -> None:
            peer.accept()
            for start in range(0, len(data), 60000):
                peer.log((1, data[start : start + 60000]))
            peer.exit(0)

        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        with FakeRchd(client.state, script):
            process = client.start("--", "make", stdout=write_end)
            os.close(write_end)
            time.sleep(0.5)
            with os.fdopen(read_end, "rb") as stream:
                assert stream.read() == data
            assert process.wait(20) == 0
            assert process.stderr.read() == b""

    def test_a_stopped_reader_does_not_keep_the_cancel_back(self, client):
        told = threading.Event()

        def script(peer: Peer) -> None:
            peer.accept()
            threading.Thread(target=flood, args=(peer,), daemon=True).start()
            assert peer.until(Frame.SIGNAL) == {"signal": "TERM"}
            told.set()
            peer.rest()

        def flood(peer: Peer) -> None:
            try:
                while True:
                    peer.log((1, b"x" * 60000))
            except OSError:
                pass

        with FakeRchd(client.state, script) as rchd:
            process = client.start("--", "make")
            time.sleep(1.0)
            process.send_signal(signal.SIGTERM)
            assert told.wait(10)
            time.sleep(0.3)
            assert process.poll() is None  # told while it waits for the end, not with its last breath
            assert process.wait(20) == 128 + signal.SIGTERM
            rchd.wait()


class TestSignals:
    @pytest.mark.parametrize(
        ("number", "name"), [(signal.SIGINT, "INT"), (signal.SIGTERM, "TERM"), (signal.SIGHUP, "HUP")]
    )
    def test_are_told_and_the_status_is_what_rchd_says(self, client, number, name):
        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"ready\n"))
            assert peer.until(Frame.SIGNAL) == {"signal": name}
            peer.exit(77)

        with FakeRchd(client.state, script) as rchd:
            process = client.start("--", "make")
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(number)
            assert process.wait(20) == 77
            rchd.wait()

    def test_ux_06_the_prompt_is_back_with_130_although_rchd_says_nothing(self, client):
        with FakeRchd(client.state, lambda peer: (peer.accept(), peer.log((1, b"ready\n")), peer.rest())) as rchd:
            process = client.start("--", "make")
            process.stdout.readline()
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert 1.0 < time.monotonic() - begun < 20
            rchd.wait()
        assert (Frame.SIGNAL, {"signal": "INT"}) in rchd.peers[0].seen

    def test_ux_06_a_second_sigint_returns_at_once(self, client):
        told = threading.Event()

        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"ready\n"))
            peer.until(Frame.SIGNAL)
            told.set()
            peer.rest()

        with FakeRchd(client.state, script):
            process = client.start("--", "make")
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert told.wait(10)
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert time.monotonic() - begun < 1.5  # well below the two seconds of a first one

    @pytest.mark.parametrize(
        "answer",
        [
            lambda peer: peer.say(Frame.LOCAL, code="lost", reason="gone", slots=0),
            lambda peer: peer.exit(0, run_locally="then-here"),
            lambda peer: peer.exit(130, post_compile="touch ran"),
        ],
    )
    def test_nothing_is_run_here_once_the_command_was_cancelled(self, client, answer):
        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"ready\n"))
            peer.until(Frame.SIGNAL)
            answer(peer)
            peer.rest()

        with FakeRchd(client.state, script):
            process = client.start("--", "touch", "ran")
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        assert os.listdir(client.project) == []

    def test_before_a_job_is_there_the_first_signal_ends_us(self, client):
        waits = threading.Event()
        with FakeRchd(client.state, lambda peer: (waits.set(), peer.rest())) as rchd:
            process = client.start("--", "make")
            assert waits.wait(10)
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 143
            rchd.wait()
        assert rchd.peers[0].seen == [(Frame.SIGNAL, {"signal": "TERM"})]

    def test_an_ignored_signal_stays_ignored_as_under_nohup(self, client):
        go = threading.Event()

        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"ready\n"))
            go.wait(10)
            peer.exit(0)
            peer.rest()

        with FakeRchd(client.state, script) as rchd:
            process = client.start("--", "make", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
            process.stdout.readline()
            process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
            go.set()
            assert process.wait(20) == 0
            rchd.wait()
        assert rchd.peers[0].seen == []

    def test_ex_03_a_killed_client_says_nothing(self, client):
        with FakeRchd(client.state, lambda peer: (peer.accept(), peer.log((1, b"ready\n")), peer.rest())) as rchd:
            process = client.start("--", "make")
            process.stdout.readline()
            process.kill()
            process.wait(20)
            rchd.wait()
        assert rchd.peers[0].seen == []


class TestATerminal:
    def test_is_named_with_its_size_and_its_changes(self, client):
        import fcntl
        import struct
        import termios

        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"colour\n"))
            assert peer.until(Frame.RESIZE) == {"rows": 50, "cols": 120}
            peer.exit(0)

        with FakeRchd(client.state, script) as rchd:
            terminal = client.on_tty(["--", "make"])
            terminal.read_until(b"colour")
            fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("hhhh", 50, 120, 0, 0))
            assert os.waitstatus_to_exitcode(terminal.end()) == 0
            terminal.close()
        request = rchd.peers[0].request
        assert request["fds"] == {"0": "tty", "1": "tty", "2": "tty", "same": True}
        assert (request["rows"], request["cols"]) == (40, 100)
        assert not [value for frame, value in rchd.peers[0].seen if frame is Frame.STDIN]

    def test_ux_05_is_never_read_without_being_asked_for(self, client):
        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"ready\n"))
            time.sleep(0.5)
            peer.exit(0)
            peer.rest()

        with FakeRchd(client.state, script) as rchd:
            terminal = client.on_tty(["--", "make"])
            terminal.read_until(b"ready")
            terminal.type(b"for the shell\n")
            assert os.waitstatus_to_exitcode(terminal.end()) == 0
            rchd.wait()
            terminal.close()
        assert rchd.peers[0].seen == []

    def test_ctrl_c_ends_us_by_the_signal_itself_so_that_a_shell_loop_stops(self, client):
        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"ready\n"))
            peer.until(Frame.SIGNAL)
            peer.exit(130)

        with FakeRchd(client.state, script):
            terminal = client.on_tty(["--", "make"])
            terminal.read_until(b"ready")
            terminal.type(b"\x03")
            assert os.waitstatus_to_exitcode(terminal.end()) == -signal.SIGINT
            terminal.close()

    def test_a_status_130_of_the_tool_itself_is_no_signal(self, client):
        with FakeRchd(client.state, lambda peer: (peer.accept(), peer.exit(130))):
            terminal = client.on_tty(["--", "make"])
            assert os.waitstatus_to_exitcode(terminal.end()) == 130
            terminal.close()

    def test_with_i_keys_reach_the_job_untouched_and_the_terminal_is_as_before_afterwards(self, client):
        import termios

        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"ready\n"))
            got = b""
            while len(got) < 4:
                got += peer.until(Frame.STDIN)
            peer.log((1, b"got " + got.hex().encode() + b"\n"))
            peer.exit(0)

        with FakeRchd(client.state, script):
            terminal = client.on_tty(["-i", "--", "sh"])
            before = termios.tcgetattr(terminal.fd)
            terminal.read_until(b"ready")
            terminal.type(b"a\x03\r\x1a")
            shown = terminal.read_until(b"got 61030d1a")
            assert b"got 61030d1a\r\n" in terminal.read_until(b"got 61030d1a\r\n")
            assert b"\r\r" not in shown
            assert os.waitstatus_to_exitcode(terminal.end()) == 0
            assert termios.tcgetattr(terminal.fd) == before
            terminal.close()


class TestStdin:
    def test_of_a_pipe_arrives_whole_with_its_end(self, client):
        data = os.urandom(3 << 20)
        got: list[bytes] = []
        with FakeRchd(client.state, lambda peer: (peer.accept(), got.append(peer.stdin()), peer.exit(0))):
            assert client.run("--", "cat", data=data).status == 0
        assert got == [data]

    def test_of_a_socket_arrives_with_its_end(self, client):
        import socket

        ours, theirs = socket.socketpair()
        got: list[bytes] = []
        with FakeRchd(client.state, lambda peer: (peer.accept(), got.append(peer.stdin()), peer.exit(0))):
            process = client.start("--", "cat", stdin=theirs)
            theirs.close()
            ours.sendall(b"over a socket")
            ours.close()
            assert process.wait(20) == 0
        assert got == [b"over a socket"]

    def test_of_a_file_arrives_from_where_its_offset_stands(self, client, tmp_path):
        path = tmp_path / "input"
        path.write_bytes(b"head\nbody")
        got: list[bytes] = []
        script = lambda peer: (peer.accept(), got.append(peer.stdin()), peer.exit(0))  # noqa: E731
        with FakeRchd(client.state, script), path.open("rb", buffering=0) as file:
            file.read(5)
            assert client.run("--", "cat", stdin=file).status == 0
            assert file.tell() == 9
        assert got == [b"body"]

    def test_of_a_file_is_left_behind_what_the_job_used(self, client, tmp_path):
        path = tmp_path / "input"
        path.write_bytes(b"one\ntwo\n")
        script = lambda peer: (peer.accept(), peer.stdin(), peer.exit(0, stdin_used=4))  # noqa: E731
        with FakeRchd(client.state, script), path.open("rb", buffering=0) as file:
            client.run("--", "head", "-1", stdin=file)
            assert file.read() == b"two\n"

    def test_nothing_is_read_before_a_worker_has_accepted(self, no_start):
        client = no_start
        with FakeRchd(client.state, lambda peer: peer.say(Frame.LOCAL, code="queue-timeout", reason="full", slots=0)):
            result = client.run("--", "cat", data=b"all of it")
        assert (result.status, result.out) == (0, b"all of it")

    def test_nothing_is_read_for_a_kind_that_reads_none(self, client):
        read_end, write_end = os.pipe()
        os.write(write_end, b"a list for the loop around us")
        os.close(write_end)
        with FakeRchd(client.state, lambda peer: (peer.accept(stdin=False), time.sleep(0.3), peer.exit(0))):
            assert client.run("--", "cargo", "build", stdin=read_end).status == 0
        assert os.read(read_end, 100) == b"a list for the loop around us"
        os.close(read_end)

    def test_os_06_an_unread_stdin_is_bounded_and_leaves_room_for_signals(self, client):
        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"ready\n"))
            assert peer.until(Frame.SIGNAL) == {"signal": "INT"}
            peer.exit(130)
            peer.rest()

        with FakeRchd(client.state, script) as rchd:
            process = client.start("--", "make", stdin=subprocess.PIPE)
            threading.Thread(target=pour, args=(process.stdin,), daemon=True).start()
            process.stdout.readline()
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            rchd.wait()
        sent = sum(len(value) for frame, value in rchd.peers[0].seen if frame is Frame.STDIN)
        assert sent == 256 << 10
        assert Frame.STDIN_END not in [frame for frame, _ in rchd.peers[0].seen]

    def test_hb_08_a_repetition_here_reads_it_all_again(self, no_start):
        client = no_start
        data = os.urandom(2 << 20)

        def script(peer: Peer) -> None:
            peer.accept()
            peer.stdin()
            peer.say(Frame.LOCAL, code="red-there", reason="repeated", slots=0)
            peer.rest()

        with FakeRchd(client.state, script):
            result = client.run("--", "cat", data=data)
        assert (result.status, result.out == data) == (0, True)

    def test_hb_08_what_was_not_yet_forwarded_follows_in_a_repetition(self, no_start):
        client = no_start

        def script(peer: Peer) -> None:
            peer.accept()
            peer.until(Frame.STDIN)
            peer.say(Frame.LOCAL, code="red-there", reason="repeated", slots=0)
            peer.rest()

        with FakeRchd(client.state, script):
            process = client.start("--", "cat", stdin=subprocess.PIPE)
            process.stdin.write(b"first ")
            process.stdin.flush()
            time.sleep(1.0)
            out, _ = process.communicate(b"second", 20)
        assert out == b"first second"


def pour(stream) -> None:
    try:
        while True:
            stream.write(b"y\n" * 4096)
    except OSError:
        pass


class TestAProof:
    def test_se_08_is_a_nonce_file_that_leaves_no_trace(self, client):
        seen: list[object] = []
        before = os.stat(client.project).st_mtime_ns
        nonce = ".rch-proof-0123456789abcdef"

        def script(peer: Peer) -> None:
            peer.say(Frame.PROVE, root=client.project, nonce=nonce)
            seen.append(peer.until(Frame.PROOF))
            found = os.stat(os.path.join(client.project, nonce), follow_symlinks=False)
            seen.append((found.st_mode & 0o777, found.st_uid))
            peer.say(Frame.PROVED, root=client.project)
            peer.accept()
            peer.exit(0)

        with FakeRchd(client.state, script):
            client.run("--", "make")
        here = os.stat(client.project)
        assert seen == [{"root": client.project, "dev": here.st_dev, "ino": here.st_ino}, (0o600, os.getuid())]
        assert os.listdir(client.project) == []
        assert here.st_mtime_ns == before

    def test_keeps_the_time_that_somebody_elses_change_made(self, client):
        def script(peer: Peer) -> None:
            peer.say(Frame.PROVE, root=client.project, nonce=".rch-proof-0123456789abcdef")
            peer.until(Frame.PROOF)
            Path(client.project, "edited").touch()
            peer.say(Frame.PROVED, root=client.project)
            peer.exit(0)

        os.utime(client.project, ns=(1, 1))
        with FakeRchd(client.state, script):
            client.run("--", "make")
        assert os.listdir(client.project) == ["edited"]
        assert os.stat(client.project).st_mtime_ns > 1

    @pytest.mark.parametrize(
        "nonce", ["../.rch-proof-0123456789abcdef", "Makefile", ".rch-proof-../../../../etc/x", ".rch-proof-", ""]
    )
    def test_is_refused_for_any_name_that_rchd_does_not_make(self, client, nonce):
        answers: list[object] = []

        def script(peer: Peer) -> None:
            peer.say(Frame.PROVE, root=client.project, nonce=nonce)
            answers.append(peer.until(Frame.PROOF))
            peer.exit(0)

        with FakeRchd(client.state, script):
            client.run("--", "make")
        assert answers == [{"root": client.project, "error": "not the name of a proof"}]
        assert os.listdir(client.project) == []

    def test_never_follows_a_link_or_takes_a_file_that_is_there(self, client):
        nonce = ".rch-proof-0123456789abcdef"
        target = os.path.join(client.project, "victim")
        os.symlink(target, os.path.join(client.project, nonce))
        answers: list[object] = []

        def script(peer: Peer) -> None:
            peer.say(Frame.PROVE, root=client.project, nonce=nonce)
            answers.append(peer.until(Frame.PROOF))
            peer.exit(0)

        with FakeRchd(client.state, script):
            client.run("--", "make")
        assert answers == [{"root": client.project, "error": "File exists"}]
        assert not os.path.exists(target)

    def test_is_taken_back_when_rchd_or_the_caller_leaves(self, no_start):
        client = no_start
        asked = threading.Event()

        def script(peer: Peer) -> None:
            peer.say(Frame.PROVE, root=client.project, nonce=".rch-proof-0123456789abcdef")
            peer.until(Frame.PROOF)
            asked.set()
            peer.rest()

        with FakeRchd(client.state, script):
            process = client.start("--", "make")
            assert asked.wait(10)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        assert os.listdir(client.project) == []


class TestAnRchdThatDies:
    def rchd(self, client, text: str, repeat: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fake_rchd.py")), client.state, text, str(repeat)],
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"ready\n"
        return process

    def test_os_03_killed_mid_output_leaves_neither_gap_nor_repetition(self, no_start):
        client = no_start
        text = "zażółć 🦀 " * 2000
        first = self.rchd(client, text, 40)
        requests: list[dict] = []

        def second(peer: Peer) -> None:
            requests.append(peer.request)
            from rch.worker.protocol import log_frame

            one = log_frame(1, text.encode(), 1)
            # From the frame before the one that is wanted: what came already must not show again.
            peer.offset = max(0, peer.request["attach"]["offset"] - len(one))
            for _ in range((50 * len(one) - peer.offset) // len(one)):
                peer.log((1, text.encode()))
            peer.exit(9)

        process = client.start("--", "make")
        out = [os.read(process.stdout.fileno(), 100_000)]  # past the buffered reader, as communicate() reads
        first.send_signal(signal.SIGKILL)
        first.wait(10)
        first.stdout.close()
        with FakeRchd(client.state, second):
            rest, err = process.communicate(timeout=60)
        out.append(rest)
        assert (process.returncode, err) == (9, b"")
        got = b"".join(out)
        assert len(got) == len(text.encode()) * 50
        assert got == text.encode() * 50
        assert requests[0]["attach"]["job"] == "j-1"

    def test_before_a_job_is_there_the_order_is_given_once_more(self, no_start):
        client = no_start
        with FakeRchd(client.state, lambda peer: None, lambda peer: (peer.accept(), peer.exit(6))) as rchd:
            assert client.run("--", "make").status == 6
        assert [peer.request["attach"] for peer in rchd.peers] == [None, None]

    def test_an_order_that_ends_rchd_twice_runs_here(self, no_start):
        client = no_start
        with FakeRchd(client.state, lambda peer: None) as rchd:
            result = client.run("--", "sh", "-c", "exit 4")
        assert result.status == 4
        assert "[rch] local: no-daemon: rchd ended while it looked at this command, twice" in result.err
        assert len(rchd.peers) == 2

    def test_a_signal_ends_the_wait_for_it(self, no_start):
        client = no_start
        first = self.rchd(client, "ready\n", 1)
        process = client.start("--", "make")
        process.stdout.readline()
        first.kill()
        first.wait(10)
        first.stdout.close()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130

    def test_ux_06_a_cancel_reaches_the_one_that_comes_back_after_the_prompt_has(self, no_start):
        client = no_start
        first = self.rchd(client, "ready\n", 1)
        process = client.start("--", "make")
        process.stdout.readline()
        first.kill()
        first.wait(10)
        first.stdout.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stdout.read() == b""  # whoever stays behind holds nothing of the caller's
        told: list[object] = []
        with FakeRchd(
            client.state, lambda peer: (told.append(peer.until(Frame.SIGNAL)), peer.exit(130), peer.rest())
        ) as rchd:
            until = time.monotonic() + 20
            while not told and time.monotonic() < until:
                time.sleep(0.05)
            rchd.wait()
        assert told == [{"signal": "INT"}]
        assert [peer.request["attach"]["job"] for peer in rchd.peers] == ["j-1"]

    def test_that_never_returns_is_told_truthfully_and_is_no_success(self, no_start, tmp_path):
        client = no_start
        driver = tmp_path / "impatient.py"
        driver.write_text(
            f"import sys; sys.path.append({str(Path(__file__).resolve().parents[3])!r})\n"
            "import rch.client_main as m, rch.client_reach as w; w.RETURN_S = 0.5; sys.exit(m.main(sys.argv[1:]))\n"
        )
        first = self.rchd(client, "ready\n", 1)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(driver), "--", "make"],
            env=client.environ, cwd=client.project, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout.readline() == b"ready\n"
        first.kill()
        first.wait(10)
        first.stdout.close()
        _, err = process.communicate(timeout=30)
        assert process.returncode == 102
        assert err.startswith(
            b"rch: error[JobLost] rchd is gone and did not come back within 0.5 s; job j-1 on css may go on"
        )
        assert err.count(b"\n") == 1

    def test_stdin_goes_on_where_the_worker_says(self, no_start):
        client = no_start
        data = os.urandom(600_000)
        got: list[bytes] = []

        def first(peer: Peer) -> None:
            peer.accept()
            while sum(map(len, got)) < 200_000:
                got.append(peer.until(Frame.STDIN))
                peer.taken(sum(map(len, got)))
            peer.until(Frame.STDIN)  # received and lost

        def second(peer: Peer) -> None:
            peer.taken(sum(map(len, got)))
            begun = sum(map(len, got))
            while (frame := peer.receive()) and frame[0] is Frame.STDIN:
                got.append(frame[1])
                peer.taken(sum(map(len, got)))
            assert sum(map(len, got)) > begun
            peer.exit(0)

        with FakeRchd(client.state, first, second):
            assert client.run("--", "cat", data=data).status == 0
        assert b"".join(got) == data


class TestNonsenseFromTheOtherSide:
    @pytest.mark.parametrize(
        "wreck",
        [
            lambda peer: peer.transport._write(b"\x10\xff\xff\xff\xff"),
            lambda peer: peer.transport.send(Frame.LOG, (8).to_bytes(8, "big") + b"\1\0\0\0\0\0\0\xff"),
            lambda peer: peer.transport.send(Frame.LOG, (4).to_bytes(8, "big") + b"\1\0\0\0\0\0\0\xff"),
            lambda peer: peer.transport.send(Frame.LOG, (99).to_bytes(8, "big")),
            lambda peer: peer.transport.send(Frame.EXIT, b"[]"),
            lambda peer: peer.transport.send(Frame.EXIT, b"{"),
            lambda peer: peer.taken(5),
        ],
    )
    def test_ends_the_connection_and_the_command_runs_here(self, no_start, wreck):
        client = no_start
        with FakeRchd(client.state, lambda peer: (wreck(peer), peer.rest())):
            result = client.run("--", "sh", "-c", "echo here")
        assert (result.status, result.out) == (0, b"here\n")
        assert result.err.count("\n") == 1

    def test_a_status_outside_all_bounds_is_no_success(self, client):
        for status in (256, -1, "0", None, True):
            with FakeRchd(client.state, lambda peer, status=status: (peer.accept(), peer.exit(status))):
                assert client.run("--", "make").status == 1
