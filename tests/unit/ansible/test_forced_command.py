"""The forced command as a program: what it starts for which words. On a real sshd: molecule/worker_base."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

from rch.testing.lab_provision import program

TEMPLATE = Path(__file__).resolve().parents[3] / "roles" / "worker_base" / "templates" / "forced-command.j2"

needs_sandbox = pytest.mark.skipif(
    shutil.which("bwrap") is None or shutil.which("rsync") is None, reason="needs bwrap and rsync: ./dev setup"
)


@pytest.fixture(params=["cache", "a cache's $(touch seen)"])
def cache(tmp_path, request):
    place = tmp_path / request.param
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "rch-wkr").write_text("import sys\nprint('agent', *sys.argv[1:])\n")
    return str(place)


@pytest.fixture
def gate(tmp_path, cache):
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.filters |= {"comment": lambda text: f"# {text}", "quote": shlex.quote}
    text = environment.from_string(TEMPLATE.read_text()).render(
        ansible_managed="by Ansible",
        worker_base_user="rch",
        worker_base_cache_dir=cache,
        worker_base_python=sys.executable,
    )
    path = tmp_path / "forced-command"
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def ask(gate, tmp_path):
    """A function: what a client asks for -> what came of it."""

    def run(asked, data=b""):
        env = {"PATH": os.environ["PATH"], "HOME": "/home/rch"} | ({"SSH_ORIGINAL_COMMAND": asked} if asked else {})
        return subprocess.run([gate], input=data, env=env, cwd=tmp_path, capture_output=True, timeout=60, check=False)

    return run


def served(cache):
    """As rch/execute/ssh.py says it."""
    program = f"{cache}/bin/rch-wkr"
    return f"exec python3 -I -S {shlex.quote(program)} serve --cache {shlex.quote(cache)}"


def test_is_a_sound_program(gate):
    done = subprocess.run([program("shellcheck"), gate], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_starts_the_agent_confined_and_with_its_own_python(ask, cache):
    assert ask(served(cache)).stdout.decode() == f"agent serve --confined --cache {cache}\n"
    assert ask(f"{served(cache)} --slots 12").stdout.decode() == f"agent serve --confined --cache {cache} --slots 12\n"
    assert ask(served(cache).replace("python3", "/no/such/python")).stdout.startswith(b"agent ")


def test_tells_where_home_is(ask):
    assert ask("printf '<%s>' \"$HOME\"").stdout == b"</home/rch>"


REFUSED = [
    "",
    "id",
    "sh",
    "/bin/sh -c id",
    "exec id",
    "{exec}; touch seen",
    "{exec} --slots 2; touch seen",
    "{exec} --slots $(touch seen)",
    "{exec} --slots `touch seen`",
    "{exec} --slots 2 --socket",
    "{exec} --slots ",
    "{exec} --slots -1",
    "{exec} --slots 2\ntouch seen",
    "{exec}/../x",
    "{exec} ",
    "{exec}\ntouch seen",
    "touch seen; {exec}",
    "{serve}",
    "exec python3 -c 'x' {exec}; touch seen",
    "exec python3 -I -S /x/bin/rch-wkr serve --cache /x",
    "printf '<%s>' \"$HOME\"; touch seen",
    "printf '<%s>' \"$HOME\" ",
    "rsync",
    "rsync /etc/passwd /tmp/x",
    "rsync --daemon",
    "scp -f /etc/passwd",
    "/usr/lib/openssh/sftp-server",
    "internal-sftp",
    "tmux",
]


@pytest.mark.parametrize("asked", REFUSED)
def test_refuses_everything_else(ask, cache, asked, tmp_path):
    exec_ = served(cache)
    done = ask(asked.replace("{exec}", exec_).replace("{serve}", exec_.removeprefix("exec ")))
    assert done.returncode == 126
    assert done.stdout == b""
    assert done.stderr == b"rch: this key starts rch-wkr and rsync, nothing else\n"
    assert not (tmp_path / "seen").exists()


@needs_sandbox
class TestRsync:
    @pytest.fixture
    def rsync(self, gate, tmp_path):
        """A function: words of a real rsync whose ssh is the forced command."""
        shell = tmp_path / "ssh"
        shell.write_text(f"#!/bin/sh\nshift\nSSH_ORIGINAL_COMMAND=$* exec {shlex.quote(str(gate))}\n")
        shell.chmod(0o755)

        def run(*words):
            words = ["rsync", "-a", "-e", shlex.quote(str(shell)), *words]
            return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)

        return run

    @pytest.mark.parametrize("way", ["--secluded-args", "--no-secluded-args", "--old-args"])
    def test_goes_to_and_from_the_trees(self, rsync, cache, tmp_path, way):
        if way != "--secluded-args" and " " in cache:
            pytest.skip("only rch's own way keeps blanks; the path without any runs this")
        (tmp_path / "file").write_text("content")
        done = rsync(way, tmp_path / "file", f"there:{cache}/roots/")
        assert done.returncode == 0, done.stderr
        assert Path(cache, "roots", "file").read_text() == "content"
        assert rsync(way, f"there:{cache}/roots/file", tmp_path / "back").returncode == 0
        assert (tmp_path / "back").read_text() == "content"

    @pytest.mark.parametrize("way", ["--secluded-args", "--no-secluded-args"])
    def test_reads_nothing_else(self, rsync, cache, tmp_path, way):
        (tmp_path / "secret").write_text("secret")
        os.makedirs(f"{cache}/roots")
        os.symlink("/etc", f"{cache}/roots/out")
        places = ("/etc/passwd", tmp_path / "secret", f"{cache}/bin/rch-wkr", f"{cache}/roots/../bin/rch-wkr")
        for place in (*places, f"{cache}/roots/out/passwd", "/proc/self/root/etc/passwd", "/proc/1/environ"):
            assert rsync(way, "-L", f"there:{place}", tmp_path / "got").returncode != 0
            assert not (tmp_path / "got").exists(), place

    @pytest.mark.parametrize("way", ["--secluded-args", "--no-secluded-args"])
    def test_writes_nothing_else(self, rsync, cache, tmp_path, way):
        (tmp_path / "x").write_text("planted")
        agent = Path(cache, "bin", "rch-wkr")
        before = agent.read_text()
        for place in (agent, f"{cache}/", f"{tmp_path}/y", f"{cache}/roots/../bin/", "/dev/shm/rch-planted"):
            rsync(way, tmp_path / "x", f"there:{place}")
        assert agent.read_text() == before
        assert not os.path.exists(f"{cache}/x")
        assert not (tmp_path / "y").exists()
        assert not os.path.exists("/dev/shm/rch-planted")

    def test_takes_the_words_as_words(self, ask, tmp_path):
        ask("rsync --server --help; touch seen")
        ask("rsync --server $(touch seen) `touch seen` ${x:-y}")
        assert not (tmp_path / "seen").exists()

    def test_makes_the_places_that_it_may_see(self, ask, cache):
        assert ask("rsync --server --help").returncode == 0
        assert sorted(os.listdir(cache)) == ["bin", "caches", "roots", "toolchains", "trash"]
        assert os.stat(f"{cache}/roots").st_mode & 0o777 == 0o700
