"""Which callers count as confined, seen from the other end of their connection."""

import shutil
import socket
import subprocess
import sys

import pytest

from rch.daemon.peer import Peer, peer_of

CONNECT = """\
import ctypes, socket, sys
if sys.argv[2] == "no_new_privs":
    assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0
one = socket.socket(socket.AF_UNIX)
one.connect(sys.argv[1])
sys.stdin.read()
"""


@pytest.fixture
def seen(tmp_path):
    """What a process that connects is taken for; *before* goes in front of its words."""

    def look(how, *before):
        path = str(tmp_path / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            words = [*before, sys.executable, "-c", CONNECT, path, how]
            with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
                listener.settimeout(60)
                connection, _ = listener.accept()
                with connection:
                    found = peer_of(connection)
                assert process.stdin is not None
                process.stdin.close()
                assert process.wait(60) == 0
        return found

    return look


needs_bwrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap: CI and dev machines")


class TestACaller:
    def test_of_the_same_session_is_not_confined(self, seen):
        assert seen("") == Peer(confined=False, offline=False)

    def test_se_08_that_can_gain_no_privileges_is_confined(self, seen):
        with open("/proc/self/status", encoding="ascii") as file:
            if "NoNewPrivs:\t1" in file.read():
                pytest.skip("the tests run in a sandbox themselves: CI and dev machines do not")
        assert seen("no_new_privs") == Peer(confined=True, offline=False)

    @needs_bwrap
    def test_se_08_of_other_namespaces_is_confined(self, seen):
        assert seen("", "bwrap", "--bind", "/", "/", "--dev", "/dev") == Peer(confined=True, offline=False)

    @needs_bwrap
    def test_ex_10_without_our_network_is_offline(self, seen):
        assert seen("", "bwrap", "--bind", "/", "/", "--dev", "/dev", "--unshare-net").offline
