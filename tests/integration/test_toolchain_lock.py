"""The lock of toolchains on a worker: playbooks/toolchains.yml does what each key says, and jobs feel it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from rch.fleet import read_registry
from rch.testing.lab_provision import PlaybookFailed, provision
from rch.testing.products import cargo_units, sent_out, succeeded

GCC = subprocess.run(["gcc", "-dumpversion"], capture_output=True, text=True, check=True).stdout.split(".")[0].strip()

CACHES = '[caching]\ncc_wrapper = "ccache"\nrustc_wrapper = "sccache"\n'

pytestmark = pytest.mark.heavy  # ./dev test --all brings both programs


@pytest.fixture(scope="module")
def sync(embedded_lab, tmp_path_factory):
    """A function: text of a lock -> the run of playbooks/toolchains.yml; at the end the worker is as it was."""
    place = tmp_path_factory.mktemp("lock")

    def run(text, *arguments):
        (place / "toolchain.toml").write_text(text)
        caches = {"compiler_cache_ccache_dir": f"{place}/ccache", "compiler_cache_dir": f"{place}/sccache"}
        given = json.dumps({"toolchains_lock": f"{place}/toolchain.toml", **caches})
        return provision(
            embedded_lab.inventory,
            scratch=embedded_lab.directory,
            state_dir=embedded_lab.state_dir,
            playbook="playbooks/toolchains.yml",
            arguments=("--extra-vars", given, *arguments),
        )

    yield run
    run("")


def facts_of(lab):
    return read_registry(lab.state_dir).workers["lab1"].observed.facts


@pytest.fixture(scope="module")
def synced(sync, embedded_lab):
    """Facts of the worker under a lock without Rust and caches, and under the one with both, under which it stays."""
    sync(f'[rust]\nmethod = "none"\n[cpp]\ngcc_version = "{GCC}"\n')
    bare = facts_of(embedded_lab)
    sync(CACHES)
    return bare, facts_of(embedded_lab)


class TestTheLock:
    def test_d_11_is_in_the_workers_facts_and_gone_from_them_with_it(self, synced):
        bare, full = synced
        assert not bare["toolchains"].get("rust")
        assert not bare.get("compiler_cache")
        assert full["toolchains"]["rust"]
        programs = (full["compiler_cache"]["cc_wrapper"], full["compiler_cache"]["rustc_wrapper"])
        assert programs == ("/usr/bin/ccache", "/usr/bin/sccache")

    def test_is_audited_without_a_change(self, sync, synced, embedded_lab):
        with pytest.raises(PlaybookFailed) as caught:
            sync(f'[cpp]\nclang_version = "3"\n{CACHES}', "--check")
        said = caught.value.recap.output
        assert "lab1: cpp: clang 3 is wanted, has " in said
        assert "lab1: caching" not in said
        assert facts_of(embedded_lab) == synced[1]


def counts(directory):
    """What ccache counted in *directory* so far."""
    env = {**os.environ, "CCACHE_DIR": directory, "CCACHE_CONFIGPATH": "/dev/null"}
    said = subprocess.run(["ccache", "--print-stats"], env=env, capture_output=True, text=True, check=True).stdout
    found = dict(line.split("\t") for line in said.splitlines())
    return int(found["direct_cache_hit"]) + int(found["preprocessed_cache_hit"]), int(found["cache_miss"])


class TestTheCompilerCacheOfAWorker:
    @pytest.fixture
    def caches(self, synced, embedded_lab, new_state):
        """(a workstation that knows the worker with its caches, the directories of sccache and ccache)"""
        state = new_state(embedded_lab)
        config = Path(state.environment["XDG_CONFIG_HOME"], "rch")
        config.mkdir()
        # Debian's sccache listens on a port: it is used where a job has a network of its own.
        (config / "config.toml").write_text('[execution]\nnetwork = "none"\n')
        return state, synced[1]["compiler_cache"]["directories"]

    def test_answers_the_second_build_of_c_in_another_directory(self, caches, tmp_path):
        state, directories = caches
        ccache = directories[-1]
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.c").write_text('#include <stdio.h>\nint main(void) { return puts("hi") < 0; }\n')
            (tmp_path / name / "Makefile").write_text("a: a.o\n\tcc -o a a.o\na.o: a.c\n\tcc -O2 -c a.c\n")
        sent_out(state, "make", cwd=str(tmp_path / "one"))
        hits, misses = counts(ccache)
        assert misses >= 1
        sent_out(state, "make", cwd=str(tmp_path / "two"))
        assert counts(ccache) == (hits + 1, misses)
        assert subprocess.run([tmp_path / "two" / "a"], capture_output=True, check=True).stdout == b"hi\n"
        assert "up to date" in succeeded(state.run("make", cwd=str(tmp_path / "two")))

    def test_never_gives_one_directory_the_debug_information_of_another(self, caches, tmp_path):
        state, _ = caches
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "b.c").write_text("int b(void) { return 3; }\n")
            (tmp_path / name / "Makefile").write_text("b.o: b.c\n\tcc -g -c b.c\n")
            sent_out(state, "make", cwd=str(tmp_path / name))
        made = (tmp_path / "two" / "b.o").read_bytes()
        assert os.fsencode(tmp_path / "two") in made
        assert os.fsencode(tmp_path / "one") not in made

    def test_answers_a_release_build_of_rust_and_leaves_incremental_ones_alone(self, caches, tmp_path):
        state, directories = caches
        sccache = directories[0]
        place = tmp_path / "app"
        (place / "src").mkdir(parents=True)
        (place / "Cargo.toml").write_text('[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n')
        (place / "src" / "lib.rs").write_text("pub fn three() -> u8 { 3 }\n")

        def kept():
            return {path for path in Path(sccache).rglob("*") if path.is_file()}

        sent_out(state, "cargo", "build", cwd=str(place))
        assert kept() == set()
        sent_out(state, "cargo", "build", "--release", cwd=str(place))
        first = kept()
        assert first
        here = succeeded(state.run("cargo", "build", "--release", "-v", cwd=str(place)))
        assert cargo_units(here, "Fresh") == ["app"]
        succeeded(state.run("cargo", "clean", cwd=str(place)))
        sent_out(state, "cargo", "build", "--release", cwd=str(place))
        assert kept() == first, "the second build was answered, so nothing new was kept"
