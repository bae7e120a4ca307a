"""The way to rchd: socket, spool, and what happens when neither answers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from fake_rchd import FakeRchd, Peer

from rch.client_link import NoLink, open_link
from rch.client_paths import BadPlace, Traceless, path_without_shims, run_dir, socket_path, state_dir
from rch.config.places import places
from rch.daemon.places import make_directories
from rch.daemon.spool import SpoolServer, open_spool
from rch.daemon.wire import Frame, SocketTransport, WireError, read_request
from rch.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


STRANGER = """\
import os, socket, sys
one = socket.socket(socket.AF_UNIX)
one.bind(sys.argv[1])
os.setgid(65534); os.setuid(65534)
one.listen(1)
print("ready", flush=True)
one.settimeout(60)
connection, _ = one.accept()
connection.settimeout(60)
print(len(connection.recv(65536)), flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users: CI is")
class TestARunDirectoryOfAnotherUser:
    def test_se_05_is_told_nothing_of_the_callers_environment(self, client):
        run = client.state + "/run"
        os.makedirs(run, mode=0o700)
        words = [sys.executable, "-I", "-c", STRANGER, run + "/rchd.sock"]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as stranger:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == b"ready\n"
            result = client.run("--", "echo", "hi")
            assert stranger.stdout.readline() == b"0\n"
        assert (result.status, result.out) == (0, b"hi\n")
        assert "another user (uid 65534)" in result.err

    def test_se_05_is_no_place_for_rchd(self, client, tmp_path):
        (tmp_path / "theirs").mkdir()
        os.chown(tmp_path / "theirs", 65534, 65534)
        with pytest.raises(ConfigError, match="another user"):
            make_directories(places({"HOME": str(tmp_path), "RCH_STATE_DIR": str(tmp_path / "theirs")}))


class TestAnRchdThatHangs:
    def test_is_waited_for_a_moment_and_then_the_command_runs_here(self, client):
        os.makedirs(client.state + "/run", mode=0o700)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(client.state + "/run/rchd.sock")
            listener.listen(5)
            begun = time.monotonic()
            result = client.run("--", "echo", "hi")
            took = time.monotonic() - begun
        assert (result.status, result.out) == (0, b"hi\n")
        assert result.err.startswith(
            "[rch] local: no-daemon: rchd accepts and does not answer within 0.9 s. Fix: rch daemon restart"
        )
        assert took < 10

    def test_with_a_full_backlog_is_no_different(self, client):
        os.makedirs(client.state + "/run", mode=0o700)
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
            listener.bind(client.state + "/run/rchd.sock")
            listener.listen(0)
            first.connect(client.state + "/run/rchd.sock")
            result = client.run("--", "echo", "hi")
        assert (result.status, result.out) == (0, b"hi\n")
        assert "rchd accepts no connection within 0.9 s" in result.err

    def test_ends_103_where_remote_is_required(self, client):
        os.makedirs(client.state + "/run", mode=0o700)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(client.state + "/run/rchd.sock")
            listener.listen(5)
            assert client.run("--require-remote", "--", "true").status == 103

    def test_after_a_sign_of_life_is_given_up_after_a_long_silence(self, no_start, tmp_path):
        client = no_start
        root = str(Path(__file__).resolve().parents[3])
        driver = tmp_path / "impatient.py"
        driver.write_text(
            f"import sys; sys.path.append({root!r})\n"
            "import rch.client_relay as r, rch.client_reach as w, rch.client_main as m\n"
            "r.SILENT_S = 0.5; w.RETURN_S = 0.5; sys.exit(m.main(sys.argv[1:]))\n"
        )
        stop = threading.Event()
        with FakeRchd(client.state, lambda peer: (peer.accept(), stop.wait(20))) as rchd:
            process = subprocess.run(
                [sys.executable, "-I", "-S", str(driver), "--", "make"],
                env=client.environ, cwd=client.project, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                check=False,
            )  # fmt: skip
            stop.set()
        assert process.returncode == 102
        assert process.stderr.startswith(b"rch: error[JobLost] rchd is gone")
        assert [bool(peer.request["attach"]) for peer in rchd.peers] == [False, True, True, True, True]

    def test_refusals_are_named(self, client):
        os.makedirs(client.state + "/run", mode=0o700)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(client.state + "/run/rchd.sock")
            listener.listen(5)

            def refuse() -> None:
                connection, _ = listener.accept()
                connection.recv(1 << 20)
                connection.sendall(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 12\r\n\r\nclient 0.0.9")
                connection.close()

            thread = threading.Thread(target=refuse)
            thread.start()
            result = client.run("--", "echo", "hi")
            thread.join()
        assert result.out == b"hi\n"
        assert "no-daemon: rchd answered HTTP/1.1 426 Upgrade Required client 0.0.9" in result.err


class TestTheSpool:
    def test_ic_11_carries_everything_that_the_socket_carries(self, client):
        data = os.urandom(1 << 20)
        got: list[bytes] = []

        def script(peer: Peer) -> None:
            peer.say(Frame.PROVE, root=client.project, nonce=".rch-proof-0123456789abcdef")
            assert "dev" in peer.until(Frame.PROOF)
            peer.say(Frame.PROVED, root=client.project)
            peer.accept()
            got.append(peer.stdin())
            for start in range(0, len(data), 50_000):
                peer.log((1, data[start : start + 50_000]))
            peer.log((2, b"err"))
            peer.exit(11)

        with FakeRchd(client.state, script, over="spool"):
            result = client.run("--", "make", data=data)
        assert (result.status, result.out == data, result.err, got == [data]) == (11, True, "err", True)

    def test_leaves_no_trace_wherever_its_directory_was(self, client):
        before = os.stat(client.project).st_mtime_ns
        seen: list[list[str]] = []

        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"x"))
            time.sleep(0.2)
            seen.append(os.listdir(client.project))
            peer.exit(0)

        with FakeRchd(client.state, script, over="spool"):
            assert client.run("--", "make", env={"TMPDIR": client.project}).status == 0
        assert seen == [[]]  # gone as soon as both ends are open
        assert os.stat(client.project).st_mtime_ns == before

    def test_prefers_the_temporary_directory_to_the_project(self, client, tmp_path):
        places: list[str] = []
        original = SpoolServer._greet

        class Watched(SpoolServer):
            def _greet(self, line: bytes) -> None:
                places.extend(json.loads(line))
                original(self, line)

        os.makedirs(client.state + "/run/spool", mode=0o700)
        server = Watched(
            client.state + "/run/spool",
            lambda transport, _request: (transport.send(Frame.EXIT, b'{"status":0}'), transport.close()),
        )
        server.start()
        try:
            assert client.run("--", "make", env={"TMPDIR": str(tmp_path)}).status == 0
            assert client.run("--", "make", env={"TMPDIR": "/proc"}).status == 0
        finally:
            server.stop()
        assert os.path.dirname(places[0]) == str(tmp_path)
        assert os.path.dirname(places[1]) == "/tmp"

    @pytest.mark.parametrize("hidden", ["/tmp", "$TMPDIR"])
    def test_ic_11_is_met_where_rchd_sees_the_same_directory(self, client, tmp_path, hidden):
        if shutil.which("bwrap") is None:
            pytest.fail("bubblewrap is a requirement of the project; ./dev setup installs it")
        private = str(tmp_path) if hidden == "$TMPDIR" else "/tmp"
        keep = [w for place in (client.project,) for w in ("--bind", place, place)]
        words = [
            "bwrap",
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--unshare-pid",
            "--proc",
            "/proc",
            "--tmpfs",
            private,
        ]
        words += [*keep, "--ro-bind", client.state, client.state, "--ro-bind", str(ROOT), str(ROOT)]
        got: list[bytes] = []
        script = lambda peer: (peer.accept(), got.append(peer.stdin()), peer.log((1, b"out")), peer.exit(5))  # noqa: E731
        with FakeRchd(client.state, script, over="spool"):
            result = subprocess.run(
                [*words, sys.executable, "-I", "-S", str(ROOT / "rch" / "client.py"), "--", "make"],
                env={**client.environ, "TMPDIR": private}, cwd=client.project, capture_output=True, input=b"in",
                timeout=60, check=False,
            )  # fmt: skip
        assert (result.returncode, result.stdout, result.stderr, got) == (5, b"out", b"", [b"in"])
        assert os.listdir(client.project) == []

    def test_that_is_full_or_cannot_be_offered_is_named(self, no_start):
        client = no_start
        os.makedirs(client.state + "/run/spool", mode=0o700)
        os.mkfifo(client.state + "/run/spool/request", 0o600)
        held = os.open(client.state + "/run/spool/request", os.O_RDWR | os.O_NONBLOCK)
        try:
            with pytest.raises(BlockingIOError):
                while True:
                    os.write(held, bytes(4096))
            result = client.run("--", "echo", "hi")
        finally:
            os.close(held)
        assert result.out == b"hi\n"
        assert "rchd is not running, and the spool is full (Resource temporarily unavailable)" in result.err
        assert os.listdir(client.project) == []

    def test_signals_and_a_vanished_client_are_told(self, client):
        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, b"ready\n"))
            peer.rest()

        with FakeRchd(client.state, script, over="spool") as rchd:
            process = client.start("--", "make")
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 143
            until = time.monotonic() + 10
            while not rchd.peers[0].seen and time.monotonic() < until:
                time.sleep(0.01)
        assert rchd.peers[0].seen == [(Frame.SIGNAL, {"signal": "TERM"})]

    def test_a_dead_rchd_behind_it_is_seen_at_once(self, no_start):
        client = no_start
        os.makedirs(client.state + "/run/spool", mode=0o700)
        os.mkfifo(client.state + "/run/spool/request", 0o600)
        result = client.run("--", "echo", "hi")
        assert (result.status, result.out) == (0, b"hi\n")
        assert "no-daemon: rchd is not running" in result.err

    def test_a_hung_rchd_behind_it_is_left_in_less_than_a_second(self, no_start):
        client = no_start
        os.makedirs(client.state + "/run/spool", mode=0o700)
        os.mkfifo(client.state + "/run/spool/request", 0o600)
        held = os.open(client.state + "/run/spool/request", os.O_RDWR)
        try:
            result = client.run("--", "echo", "hi")
        finally:
            os.close(held)
        assert (result.status, result.out) == (0, b"hi\n")
        assert "rchd does not answer through the spool within 0.9 s" in result.err
        assert not [name for name in os.listdir(client.project) if name.startswith(".rch")]

    def test_many_callers_get_their_own_answers(self, client):
        def script(peer: Peer) -> None:
            peer.accept()
            peer.log((1, peer.request["argv"][1].encode()))
            peer.exit(0)

        with FakeRchd(client.state, script, over="spool"):
            running = [client.start("--", "make", f"target-{n}") for n in range(12)]
            for number, process in enumerate(running):
                out, err = process.communicate(timeout=60)
                assert (process.returncode, out, err) == (0, f"target-{number}".encode(), b"")


class TestWhatASandboxedCallerMayName:
    @pytest.fixture
    def place(self):
        with tempfile.TemporaryDirectory() as base:
            place = os.path.join(base, ".rch-spool-" + "0" * 32)
            os.mkdir(place, 0o700)
            for name in ("up", "down"):
                os.mkfifo(os.path.join(place, name), 0o600)
            fd = os.open(os.path.join(place, "request"), os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(fd, b"{}")
            os.close(fd)
            yield place

    def opened(self, place: str):
        reader = os.open(os.path.join(place, "down"), os.O_RDONLY | os.O_NONBLOCK)
        try:
            transport, request = open_spool(place)
            transport.close()
            return request
        finally:
            os.close(reader)

    def test_se_08_is_a_private_directory_of_this_user(self, place):
        assert self.opened(place) == {}

    def test_se_08_never_one_under_another_name(self, place):
        other = place.replace(".rch-spool-", "spool-")
        os.rename(place, other)
        for path in (other, place + "/..", os.path.relpath(place), "/", ""):
            with pytest.raises((WireError, OSError)):
                open_spool(path)

    def test_se_08_never_a_link(self, place):
        os.rename(place, place + "x")
        os.symlink(place + "x", place)
        with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
            open_spool(place)

    def test_se_08_never_one_that_others_may_enter(self, place):
        os.chmod(place, 0o755)
        with pytest.raises(WireError, match="not private"):
            self.opened(place)

    @pytest.mark.parametrize("name", ["up", "down", "request"])
    def test_se_08_none_of_its_files_is_a_link(self, place, name):
        os.rename(os.path.join(place, name), place + "-" + name)
        os.symlink(place + "-" + name, os.path.join(place, name))
        with pytest.raises(OSError, match="symbolic links"):
            self.opened(place)

    def test_se_08_fifos_are_fifos_and_the_request_is_a_file_of_one_name(self, place):
        os.unlink(os.path.join(place, "up"))
        Path(place, "up").touch(0o600)
        with pytest.raises(WireError, match="up is not what a client"):
            self.opened(place)
        os.unlink(os.path.join(place, "up"))
        os.mkfifo(os.path.join(place, "up"), 0o600)
        os.link(os.path.join(place, "request"), place + "-other")
        with pytest.raises(WireError, match="request is not what a client"):
            self.opened(place)

    def test_se_08_files_of_another_user_are_refused(self, place):
        if os.getuid() != 0:
            pytest.skip("needs root to make a file of another user; the CI machine runs as root")
        os.chown(os.path.join(place, "up"), 65534, 65534)
        with pytest.raises(WireError, match="up is not what a client"):
            self.opened(place)

    def test_a_request_that_is_no_object_is_refused(self, place):
        Path(place, "request").write_bytes(b"[1]")
        with pytest.raises(WireError, match="not a JSON object"):
            self.opened(place)

    def test_a_caller_that_has_gone_is_refused(self, place):
        with pytest.raises(ConnectionError):
            open_spool(place)

    def test_garbage_in_the_request_fifo_disturbs_nobody(self, client):
        with FakeRchd(client.state, lambda peer: (peer.accept(), peer.exit(4)), over="spool"):
            fd = os.open(client.state + "/run/spool/request", os.O_WRONLY | os.O_NONBLOCK)
            for line in (
                b"\n",
                b"{\n",
                b'["/etc"]\n',
                b"[1]\n",
                b"\xff\xfe\n",
                b"x" * 9000 + b"\n",
                b'["/tmp/.rch-spool-' + b"0" * 32 + b'"]\n',
            ):
                os.write(fd, line)
            os.close(fd)
            assert client.run("--", "make").status == 4

    def test_the_fifo_is_the_users_alone(self, client):
        with FakeRchd(client.state, lambda peer: peer.exit(0), over="spool"):
            found = os.stat(client.state + "/run/spool/request")
            assert stat.S_IMODE(found.st_mode) == 0o600
            assert stat.S_IMODE(os.stat(client.state + "/run/spool").st_mode) == 0o700


class TestRchdsEnd:
    def pair(self):
        ours, theirs = socket.socketpair()
        return SocketTransport(ours), theirs

    def test_refuses_what_is_no_upgrade(self):
        for head in (
            b"POST /v1/exec HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
            b"POST /v1/exec HTTP/1.1\r\nUpgrade: rch-frames\r\nContent-Length: x\r\n\r\n",
        ):
            transport, theirs = self.pair()
            theirs.sendall(head)
            with pytest.raises(WireError):
                read_request(transport)
            assert theirs.recv(100).startswith(b"HTTP/1.1 426 ")
            transport.close()
            theirs.close()

    def test_refuses_a_request_that_is_too_long_before_reading_it(self):
        transport, theirs = self.pair()
        theirs.sendall(b"POST /v1/exec HTTP/1.1\r\nUpgrade: rch-frames\r\nContent-Length: 99999999\r\n\r\n")
        with pytest.raises(WireError):
            read_request(transport)
        assert theirs.recv(100).startswith(b"HTTP/1.1 413 ")
        transport.close()
        theirs.close()

    def test_reads_a_request_that_comes_in_pieces_and_frames_right_behind_it(self):
        transport, theirs = self.pair()
        body = json.dumps({"argv": ["x"] * 20000}).encode()
        head = b"POST /v1/exec HTTP/1.1\r\nupgrade: rch-frames\r\ncontent-length: %d\r\n\r\n" % len(body)
        data = head + body + b"\x02\0\0\0\0"

        def send() -> None:
            for start in range(0, len(data), 7001):
                theirs.sendall(data[start : start + 7001])

        thread = threading.Thread(target=send)
        thread.start()
        assert len(read_request(transport)["argv"]) == 20000
        assert transport.receive() == (Frame.STDIN_END, b"")
        thread.join()
        theirs.shutdown(socket.SHUT_WR)
        assert transport.receive() is None
        theirs.close()
        transport.close()

    def test_refuses_frames_of_unknown_type_and_endless_length(self):
        for data in (b"\x63\0\0\0\0", b"\x01\xff\0\0\0"):
            transport, theirs = self.pair()
            theirs.sendall(data)
            with pytest.raises(WireError):
                transport.receive()
            transport.close()
            theirs.close()

    def test_closing_wakes_the_threads_that_wait_in_it(self):
        transport, theirs = self.pair()
        ended: list[object] = []

        def send() -> None:
            try:
                while True:
                    transport.send(Frame.LOG, b"x" * 60000)
            except OSError as error:
                ended.append(error)

        def receive() -> None:
            try:
                ended.append(transport.receive())
            except OSError as error:
                ended.append(error)

        threads = [threading.Thread(target=send), threading.Thread(target=receive)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        transport.close()
        for thread in threads:
            thread.join(10)
        assert len(ended) == 2
        theirs.close()

    def test_a_sign_of_life_never_waits_for_a_reader_that_does_not_read(self):
        transport, theirs = self.pair()
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                transport.say_alive()
        transport.close()
        theirs.close()


class TestPlaces:
    def test_follow_one_rule(self):
        assert state_dir({"RCH_STATE_DIR": "/a/b/../c"}) == "/a/c"
        assert state_dir({"XDG_STATE_HOME": "/x"}) == "/x/rch"
        assert state_dir({"XDG_STATE_HOME": "rel", "HOME": "/h"}) == "/h/.local/state/rch"
        assert run_dir({"RCH_STATE_DIR": "/s", "XDG_RUNTIME_DIR": "/tmp"}) == "/s/run"
        assert run_dir({"XDG_RUNTIME_DIR": "/tmp", "HOME": "/h"}) == "/tmp/rch"
        assert run_dir({"HOME": "/h"}) == "/h/.local/state/rch/run"

    def test_are_those_that_the_rest_of_rch_uses(self):
        places = pytest.importorskip("rch.config.places").places
        for env in (
            {"RCH_STATE_DIR": "/s/t"}, {"XDG_STATE_HOME": "/x", "HOME": "/h"}, {"HOME": "/h"}, {"HOME": "/h/"}, {},
            {"XDG_RUNTIME_DIR": "/tmp", "HOME": "/h"}, {"XDG_RUNTIME_DIR": "/nowhere", "HOME": "/h"},
            {"XDG_RUNTIME_DIR": "/tmp", "RCH_STATE_DIR": "/s"}, {"XDG_RUNTIME_DIR": "rel", "HOME": "/h"},
        ):  # fmt: skip
            where = places(env)
            assert (state_dir(env), run_dir(env), socket_path(run_dir(env))) == (where.state, where.run, where.socket)

    def test_that_no_socket_can_have_are_refused(self):
        with pytest.raises(BadPlace, match="has 101 bytes, 100 are possible"):
            socket_path("/" + "x" * (101 - len("/rchd.sock") - 1))
        with pytest.raises(BadPlace):
            state_dir({"RCH_STATE_DIR": "rel"})

    def test_pm_09_a_path_without_shims_keeps_everything_else(self, tmp_path):
        (tmp_path / ".rch-shims").touch()
        assert path_without_shims(f"/a:{tmp_path}::/b:{tmp_path}") == "/a::/b"
        assert path_without_shims("") == ""

    def test_a_trace_is_taken_back_only_if_nobody_else_left_one(self, tmp_path):
        os.utime(tmp_path, ns=(5, 5))
        trace = Traceless(str(tmp_path))
        (tmp_path / "ours").touch()
        trace.made()
        assert trace.still_ours()
        (tmp_path / "theirs").touch()
        assert not trace.still_ours()


def test_no_way_at_all_says_which(tmp_path):
    with pytest.raises(NoLink) as caught:
        open_link(str(tmp_path / "rchd.sock"), str(tmp_path), b"{}", [str(tmp_path)])
    assert (caught.value.why, str(caught.value)) == ("absent", "rchd is not running")
