"""What the client costs to start, counted in modules: a new name here needs a decision, not a shrug."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fake_rchd import FakeRchd, Peer

from rch.daemon.wire import Frame

ROOT = Path(__file__).resolve().parents[3]

# Prints what the client has imported beyond a bare `python -I -S`, when it ends.
SPY = f"""
import os, sys
bare = set(sys.modules)
told = int(sys.argv.pop(1))
sys.argv = [{str(ROOT / "rch" / "client.py")!r}, *sys.argv[1:]]
sys.path.append({str(ROOT)!r})
from rch.client import main
status = main(sys.argv[1:])
os.write(told, " ".join(sorted(set(sys.modules) - bare)).encode())
sys.exit(status)
"""

ALWAYS = {
    "__future__", "_json", "_socket", "_struct", "rch", "rch.client", "rch.client_end", "rch.client_frames",
    "rch.client_link", "rch.client_main", "rch.client_options", "rch.client_paths", "rch.client_proof",
    "rch.client_reach", "rch.client_relay", "rch.client_request", "rch.client_sink", "rch.client_stdin", "select",
    "struct", "errno",
}  # fmt: skip
OS = {"os", "stat", "_stat", "posixpath", "genericpath", "_collections_abc", "abc", "_abc"}


def imported(client, script, *words: str, stdin: bytes = b"") -> set[str]:
    read_end, write_end = os.pipe()
    with FakeRchd(client.state, script):
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", SPY, str(write_end), *words],
            env=client.environ, cwd=client.project, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            pass_fds=[write_end],
        )  # fmt: skip
        os.close(write_end)
        process.communicate(stdin, timeout=60)
        assert process.returncode == 0
    with os.fdopen(read_end, "rb") as stream:
        return set(stream.read().decode().split())


class TestTheModulesOfAnExchange:
    def test_ic_13_are_a_fixed_list_of_the_standard_library(self, client):
        def script(peer: Peer) -> None:
            peer.say(Frame.PROVE, root=client.project, nonce=".rch-proof-0123456789abcdef")
            peer.until(Frame.PROOF)
            peer.say(Frame.PROVED, root=client.project)
            peer.accept()
            peer.stdin()
            peer.log((1, b"out\n"), (2, b"err\n"))
            peer.transport.send(Frame.NOTE, b"[rch] css: warm")
            peer.exit(0, message="[rch] kept your version")

        found = imported(client, script, "-v", "--", "make", stdin=b"data")
        assert found - OS == ALWAYS

    def test_ic_06_of_a_run_here_add_only_its_own(self, client):
        found = imported(client, lambda peer: peer.say(Frame.LOCAL, code="x", reason="y", slots=1), "--", "true")
        assert found - OS == ALWAYS | {"rch.client_local", "fcntl"}

    def test_ds_09_nothing_heavy_comes_with_rch_exec_either(self):
        code = (
            "import sys; sys.argv = ['rch', '-q', 'exec', '--help']\n"
            f"sys.path.insert(0, {str(ROOT)!r})\n"
            "import runpy\n"
            "bare = set(sys.modules)\n"
            "from rch.__main__ import main\n"
            "main()\n"
            "print(' '.join(sorted(set(sys.modules) - bare)), file=sys.stderr)\n"
        )
        result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
        assert "Usage: rch exec" in result.stdout
        heavy = {
            "click",
            "rch.cli",
            "rch.config",
            "json",
            "socket",
            "asyncio",
            "subprocess",
            "http",
            "email",
            "ssl",
            "urllib",
        }
        assert not heavy & set(result.stderr.split())

    def test_the_door_is_small_because_it_is_compiled_at_every_start(self):
        assert len((ROOT / "rch" / "client.py").read_text().splitlines()) < 60


class TestTheDoor:
    def test_works_from_any_directory_by_a_relative_path_or_a_link(self, client, tmp_path):
        link = tmp_path / "client.py"
        link.symlink_to(ROOT / "rch" / "client.py")
        for place, path in (
            (ROOT / "rch", "client.py"),
            (ROOT, "rch/client.py"),
            (ROOT, "./rch/client.py"),
            (tmp_path, str(link)),
            (tmp_path, "client.py"),
        ):
            result = subprocess.run(
                [sys.executable, "-I", "-S", str(path), "--", "echo", "hi"],
                cwd=place, env={**client.environ, "RCH_BYPASS": "1"}, capture_output=True, check=False, timeout=60,
            )  # fmt: skip
            assert (result.returncode, result.stdout, result.stderr) == (0, b"hi\n", b"")

    def test_takes_options_before_the_word_exec(self, client):
        for words in (["exec"], ["-q", "exec"], ["--json", "-v", "exec"]):
            result = subprocess.run(
                [sys.executable, "-m", "rch", *words, "--", "echo", "hi"],
                env={**client.environ, "RCH_BYPASS": "1"}, cwd=ROOT, capture_output=True, check=False, timeout=60,
            )  # fmt: skip
            assert (result.returncode, result.stdout) == (0, b"hi\n")

    def test_finds_nothing_beside_the_package_before_the_standard_library(self, client, tmp_path):
        import shutil

        shutil.copytree(
            ROOT / "rch", tmp_path / "rch", ignore=lambda _d, names: [n for n in names if not n.endswith(".py")]
        )
        for name in ("struct", "errno", "select", "stat"):
            (tmp_path / f"{name}.py").write_text("raise SystemExit('hijacked')")
            (tmp_path / "rch" / f"{name}.py").write_text("raise SystemExit('hijacked')")
        result = subprocess.run(
            [sys.executable, "-I", "-S", str(tmp_path / "rch" / "client.py"), "--", "echo", "hi"],
            cwd=tmp_path, env={**client.environ, "RCH_LOCAL_ONLY": "1", "RCH_QUIET": "1"}, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        assert (result.returncode, result.stdout, result.stderr) == (0, b"hi\n", b"")
