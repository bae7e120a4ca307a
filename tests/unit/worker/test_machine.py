"""Memory limits, shared caches, the collector, facts, and who a compiler is."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rch.testing.worker_process import WorkerRefused
from rch.testing.worker_root import WorkerRoot, can_limit_memory, new_job
from rch.testing.worker_root import file_item as f
from rch.worker import _identity, facts
from rch.worker._cgroup import job_group, machine_processes
from rch.worker._identity import rust_parts
from rch.worker.identity import c_identity, rust_identity

EATER = ["/usr/bin/python3", "-I", "-S", "-c", "x = bytearray()\nwhile True: x += bytes(1 << 22)"]


class TestTheCCompiler:
    def test_is_shown_by_its_name(self):
        said = c_identity("/usr/bin:/bin")
        assert re.match(r"gcc \(.+\) \d+\.\d+", said["shown"])


class TestMemory:
    @pytest.mark.skipif(not can_limit_memory(), reason="no writable memory cgroup: the lab machine (root) runs it")
    def test_ex_05_a_job_over_its_limit_is_oom_and_nothing_else_is_hit(self, worker, job):
        result = worker.run(job, EATER, memory_bytes=96 << 20)
        assert (result.rc["reason"], result.state) == ("oom", "oom")
        assert worker.run(new_job(), ["true"], memory_bytes=96 << 20).ending == (0, None, "exited")

    @pytest.mark.skipif(not can_limit_memory(), reason="no writable memory cgroup: the lab machine (root) runs it")
    def test_a_tool_that_reports_its_childs_oom_is_oom_too(self, worker, job):
        script = f"{EATER[0]} -I -S -c '{EATER[4]}'; exit 101"
        assert worker.run(job, ["sh", "-c", script], memory_bytes=96 << 20).rc["reason"] == "oom"

    @pytest.mark.skipif(not can_limit_memory(), reason="no writable memory cgroup: the lab machine (root) runs it")
    def test_the_ceiling_of_processes_is_the_machines_own_and_nothing_of_it_stays(self):
        group = job_group(f"ceiling-{os.getpid()}", 1 << 30)
        limits = [os.path.join(path, "pids.max") for path in group.paths]
        found = [Path(path).read_text().strip() for path in limits if os.path.exists(path)]
        group.remove()
        assert found == [str(machine_processes())]
        assert not any(map(os.path.exists, group.paths))

    @pytest.mark.skipif(not can_limit_memory(), reason="no writable memory cgroup: the lab machine (root) runs it")
    def test_a_job_runs_in_groups_of_its_own_that_go_with_it(self, worker, job):
        worker.start(job, ["sh", "-c", "echo up; sleep 60"], memory_bytes=96 << 20)
        while not worker.request("read", {"job": job, "offset": 0, "max": 65536, "wait_s": 10}).body:
            pass
        here = Path("/sys/fs/cgroup")
        inside = [(path / "cgroup.procs").read_text().split() for path in here.rglob(f"rch-{job}")]
        worker.request("signal", {"job": job, "signal": "KILL"})
        worker.follow(job)
        assert inside
        assert all(len(processes) >= 2 for processes in inside)
        assert not list(here.rglob(f"rch-{job}"))

    def test_a_job_that_kills_itself_is_not_out_of_memory(self, worker, job):
        assert worker.run(job, ["sh", "-c", "kill -9 $$"], memory_bytes=1 << 30).rc["reason"] == "exited"


class TestSharedCaches:
    def test_missing_files_come_by_staging_and_are_never_replaced(self, worker, tmp_path):
        path = "registry/cache/index/foo-1.0.crate"
        ask = lambda: worker.request("cache_missing", {"cache": "cargo", "paths": [path]}).fields["missing"]  # noqa: E731
        assert ask() == [path]
        for content in (b"first", b"second"):
            staging = os.path.join(worker.cache_dir, "caches", "cargo", f"staging-{content.decode()}")
            os.makedirs(os.path.dirname(os.path.join(staging, path)))
            with open(os.path.join(staging, path), "wb") as file:
                file.write(content)
            fields = {"cache": "cargo", "staging": staging, "paths": [path]}
            assert worker.request("cache_adopt", fields).fields["adopted"] == [path]
            assert not os.path.exists(staging)
        assert ask() == []
        with open(os.path.join(worker.cache_dir, "caches", "cargo", path), "rb") as file:
            assert file.read() == b"first"

    def test_a_go_module_gets_the_description_that_the_senders_cache_may_lack(self, worker):
        stem = "cache/download/example.org/!greet/@v/v1.2.0-!r!c1"
        top = os.path.join(worker.cache_dir, "caches", "go")
        described = os.path.join(top, "mod", stem + ".info")
        for brought in ({".zip": "z"}, {".zip": "z", ".info": "from the sender"}):
            staging = os.path.join(top, "staging-x")
            os.makedirs(os.path.dirname(os.path.join(staging, stem)))
            for end, content in brought.items():
                with open(os.path.join(staging, stem + end), "w", encoding="ascii") as file:
                    file.write(content)
            fields = {"cache": "go", "staging": staging, "paths": [stem + end for end in brought]}
            worker.request("cache_adopt", fields)
            with open(described, encoding="ascii") as file:
                found = file.read()
            assert found == brought.get(".info", '{"Version": "v1.2.0-RC1"}')
            os.unlink(described)
            os.unlink(os.path.join(top, "mod", stem + ".zip"))

    def test_a_link_in_staging_or_in_the_cache_leads_nowhere(self, worker, tmp_path):
        (tmp_path / "victim").mkdir()
        (tmp_path / "secret").write_text("s")
        top = os.path.join(worker.cache_dir, "caches", "cargo")
        staging = os.path.join(top, "staging-x")
        os.makedirs(os.path.join(staging, "registry"))
        worker.request("cache_missing", {"cache": "cargo", "paths": []})
        os.symlink(tmp_path / "secret", os.path.join(staging, "registry", "a"))
        fields = {"cache": "cargo", "staging": staging, "paths": ["registry/a"]}
        with pytest.raises(WorkerRefused, match="bad-request"):
            worker.request("cache_adopt", fields)
        os.makedirs(os.path.join(top, "registry"), exist_ok=True)
        os.symlink(tmp_path / "victim", os.path.join(top, "registry", "out"))
        os.makedirs(os.path.join(staging, "registry", "out"), exist_ok=True)
        with open(os.path.join(staging, "registry", "out", "b"), "w", encoding="ascii") as file:
            file.write("x")
        with pytest.raises(WorkerRefused):
            worker.request("cache_adopt", {**fields, "paths": ["registry/out/b"]})
        assert os.listdir(tmp_path / "victim") == []

    @pytest.mark.parametrize(
        "staging",
        [
            "/tmp",
            "../x",
            "",
            None,
            "{top}",
            "{top}/registry",
            "{top}/git",
            "{top}/../cargo/staging-x",
            "{top}/staging-x/y",
        ],
    )
    def test_staging_is_a_directory_of_its_own(self, worker, staging):
        top = os.path.join(worker.cache_dir, "caches", "cargo")
        place = staging.format(top=top) if isinstance(staging, str) else staging
        with pytest.raises(WorkerRefused, match="bad-request"):
            worker.request("cache_adopt", {"cache": "cargo", "staging": place, "paths": []})


class TestCargoForReal:
    @pytest.mark.skipif(
        shutil.which("cargo") is None, reason="no cargo here; the molecule scenario of toolchain_rust runs it"
    )
    def test_it_builds_from_a_read_only_registry(self, worker):
        sysroot = subprocess.run(
            ["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True, timeout=60, cwd="/"
        ).stdout.strip()
        root = WorkerRoot(worker)
        root.hold()
        manifest = b'[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n'
        root.sync(f("Cargo.toml", manifest), f("src/main.rs", b'fn main() { println!("built there"); }\n'))
        spec = {
            "env": {"PATH": "/home/caller/tool/bin:/usr/bin:/bin", "HOME": "/home/caller"},
            "binds": [{"source": os.path.realpath(sysroot), "path": "/home/caller/tool", "mode": "ro"}],
            "cargo_home": "/home/caller/.cargo",
        }
        result = root.run("cargo build --offline && ./target/debug/app; touch ~/.cargo/registry/x || echo ro", **spec)
        assert result.stdout == b"built there\nro\n", result.stderr.decode()
        delta = root.delta()
        assert "target/debug/app" in delta.entries
        again = root.run("cargo build --offline", **spec)
        assert b"Compiling" not in again.stderr
        assert b"Finished" in again.stderr

    @pytest.mark.skipif(
        shutil.which("cargo") is None, reason="no cargo here; the molecule scenario of toolchain_rust runs it"
    )
    @pytest.mark.parametrize(
        "setting", ['rustc-wrapper = "./evil"', 'rustc = "./evil"', 'rustc-workspace-wrapper = "./evil"']
    )
    def test_ex_10_its_fetch_step_runs_nothing_that_the_project_names(self, worker, setting):
        sysroot = subprocess.run(
            ["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True, timeout=60, cwd="/"
        ).stdout.strip()
        root = WorkerRoot(worker)
        root.hold()
        root.sync(
            f("Cargo.toml", b'[package]\nname = "app"\nversion = "0.1.0"\nedition = "2021"\n'),
            f("src/main.rs", b"fn main() {}\n"),
            f(".cargo/config.toml", f"[build]\n{setting}\n".encode()),
            f("evil", b'#!/bin/sh\necho x > "$CARGO_HOME/registry/evil"\nexec rustc "$@"\n', mode=0o755),
        )
        spec = {
            "env": {
                "PATH": "/home/caller/tool/bin:/usr/bin:/bin",
                "HOME": "/home/caller",
                "CARGO_HOME": "/home/caller/.cargo",
            },
            "binds": [{"source": os.path.realpath(sysroot), "path": "/home/caller/tool", "mode": "ro"}],
            "cargo_home": "/home/caller/.cargo",
            "fetch": [{"argv": ["cargo", "fetch", "--offline"], "timeout_s": 60}],
        }
        assert root.run("true", **spec).ending == (0, None, "exited")
        assert not os.path.exists(os.path.join(worker.cache_dir, "caches", "cargo", "registry", "evil"))


class TestTheCollector:
    def make(self, worker):
        roots = []
        for n in range(3):
            root = WorkerRoot(worker)
            root.hold()
            root.sync(f("a", b"x" * 5000 * (n + 1)))
            root.release()
            roots.append(root)
        return roots

    def age(self, worker, *names, by_s=10**6):
        for name in names:
            place = os.path.join(worker.cache_dir, name)
            meta = os.path.join(place, "meta.json")
            if os.path.exists(meta):
                with open(meta, encoding="ascii") as file:
                    value = json.load(file)
                value["used_ns"] -= by_s * 10**9
                with open(meta, "w", encoding="ascii") as file:
                    json.dump(value, file)
            old = time.time() - by_s
            for part in [*(os.path.join(place, n) for n in os.listdir(place)), place]:
                os.utime(part, (old, old), follow_symlinks=False)

    def test_c_16_old_trees_go_but_the_youngest_stay(self, worker):
        roots = self.make(worker)
        self.age(worker, *[f"roots/{root.key}" for root in roots])
        asked = {"max_age_s": 3600, "keep": 1}
        plan = worker.request("gc", {**asked, "dry_run": True}).fields
        assert sorted(plan["removed"]) == sorted(f"roots/{root.key}" for root in roots[:2])
        assert all(os.path.isdir(root.tree) for root in roots)
        done = worker.request("gc", asked).fields
        assert done["removed"] == plan["removed"]
        assert done["bytes"] >= 15000
        assert [os.path.isdir(root.directory) for root in roots] == [False, False, True]

    def test_c_16_jobs_that_nobody_took_home_have_an_age_of_their_own(self, worker):
        (root,) = self.make(worker)[:1]
        job = new_job()
        worker.run(job, ["true"])
        self.age(worker, f"roots/{root.key}", f"jobs/{job}", by_s=7200)
        asked = {"max_age_s": 86400, "keep": 0}
        assert worker.request("gc", asked).fields["removed"] == []
        assert worker.request("gc", {**asked, "job_age_s": 10_000}).fields["removed"] == []
        assert worker.request("gc", {**asked, "job_age_s": 3600}).fields["removed"] == [f"jobs/{job}"]

    def test_nothing_young_held_or_running_goes(self, worker):
        held, running = WorkerRoot(worker), WorkerRoot(worker)
        held.hold()
        job = new_job()
        worker.start(job, ["sleep", "600"])
        running.hold()
        running.sync(f("a", b"1"))
        running.release()
        self.age(worker, f"roots/{held.key}", f"jobs/{job}")
        assert worker.request("gc", {"max_age_s": 3600, "keep": 0}).fields["removed"] == []
        worker.request("signal", {"job": job, "signal": "KILL"})
        worker.follow(job)

    def test_ended_jobs_go_when_they_are_old(self, worker, job):
        worker.run(job, ["true"])
        assert worker.request("gc", {"max_age_s": 3600, "keep": 0}).fields["removed"] == []
        self.age(worker, f"jobs/{job}")
        assert worker.request("gc", {"max_age_s": 3600, "keep": 0}).fields["removed"] == [f"jobs/{job}"]

    def test_a_root_taken_by_the_collector_is_new_for_who_comes_next(self, worker):
        root = self.make(worker)[0]
        self.age(worker, f"roots/{root.key}")
        worker.request("gc", {"max_age_s": 3600, "keep": 0})
        _, found = root.hold(new_job(), items=[f("b", b"2")])
        assert (found["applied"], found["generation"], found["dirty"]) == (False, "", False)
        root.generation = None
        root.sync(f("b", b"2"))
        assert set(root.index()) == {"b"}


class TestFacts:
    @pytest.fixture
    def facts(self, worker):
        return worker.request("facts", timeout_s=120).fields["facts"]

    def test_they_say_what_the_machine_is(self, facts, worker):
        assert facts["cores"] == len(os.sched_getaffinity(0))
        assert facts["cpu_flags"]
        assert facts["os"]["id"]
        assert facts["cache"]["path"] == worker.cache_dir
        assert facts["cache"]["tmpfs"] is (facts["cache"]["filesystem"] == "tmpfs")
        assert facts["sandbox"]["ok"] is True
        assert facts["rch_wkr"]["protocol"] == 1

    def test_hb_08_a_package_more_or_less_is_seen(self, tmp_path, monkeypatch):
        record = tmp_path / "status"
        monkeypatch.setattr(facts, "_PACKAGE_RECORDS", (str(tmp_path / "none"), str(record)))
        seen = [facts.packages()]
        for text in ("Package: a", "Package: b\n\nPackage: a"):
            record.write_text(text)
            seen.append(facts.packages())
        assert seen[0] == ""
        assert len(set(seen)) == 3
        assert facts.packages() == seen[-1]

    def test_te_05_the_c_compiler_is_identified_as_the_workstation_would(self, facts):
        here = c_identity("/usr/local/bin:/usr/bin:/bin")
        if here:
            assert facts["toolchains"]["c"][0]["identity"] == here["identity"]

    def test_d_10_a_toolchain_that_a_role_wrote_down_counts_as_long_as_it_is_what_was_written(self, worker):
        """The rows of a workstation are trusted for places, never for what lies there."""
        place = os.path.join(worker.cache_dir, "toolchains", "go", "one")
        os.makedirs(place + "/bin")
        with open(place + "/bin/go", "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n[ $GOTOOLCHAIN = local ] && echo go version go1.0.1 linux/amd64\n")
        os.chmod(place + "/bin/go", 0o755)
        row = {"identity": "go version go1.0.1 linux/amd64", "shown": "go 1.0.1", "sysroot": "/home/me/go"}
        rows = [
            {**row, "binds": {"/home/me/go": place}},
            {**row, "identity": "go1.0.2", "binds": {"/home/me/go": place}},
        ]
        os.makedirs(worker.cache_dir + "/facts.d/toolchains")
        with open(worker.cache_dir + "/facts.d/toolchains/go-w.json", "w", encoding="utf-8") as file:
            json.dump({"go": rows, "node": "nonsense"}, file)
        found = worker.request("facts", timeout_s=120).fields["facts"]["toolchains"]
        assert [one["identity"] for one in found["go"] if one["binds"]] == [row["identity"]]

    def test_d_10_a_rust_toolchain_says_its_components_and_targets(self, tmp_path):
        for target in ("x86_64-unknown-linux-gnu", "wasm32-unknown-unknown"):
            (tmp_path / "lib" / "rustlib" / target / "lib").mkdir(parents=True)
            (tmp_path / "lib" / "rustlib" / target / "lib" / "libcore-0.rlib").write_text("")
        (tmp_path / "lib" / "rustlib" / "etc").mkdir()
        listed = "rustc-x86_64-unknown-linux-gnu\nclippy-preview-x86_64-unknown-linux-gnu\nrust-src\n"
        (tmp_path / "lib" / "rustlib" / "components").write_text(listed)
        assert rust_parts(str(tmp_path)) == {
            "components": ["clippy", "rust-src", "rustc"],
            "targets": ["wasm32-unknown-unknown", "x86_64-unknown-linux-gnu"],
        }
        (tmp_path / "lib" / "rustlib" / "components").unlink()
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "clippy-driver").write_text("")
        assert rust_parts(str(tmp_path))["components"] == ["clippy"]  # a distribution's, which keeps no list

    def test_health_is_now(self, worker):
        health = worker.request("health").fields
        assert 0 < health["mem_available"] <= health["mem_total"]
        assert 0 < health["disk_free"] <= health["disk_total"]
        assert (health["slots_total"], health["slots_used"], health["jobs"]) == (4, 0, 0)


class TestIdentity:
    @pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here; worker_base installs one for toolchain_cpp")
    def test_te_05_a_compiler_is_its_version_target_program_and_packages(self, tmp_path):
        said = c_identity("/usr/bin")
        lines = said["identity"].splitlines()
        assert [line for line in lines if line.startswith("gcc: ")]
        assert lines[-1].startswith("packages: ")
        imposter = tmp_path / "gcc"
        imposter.write_text('#!/bin/sh\nexec /usr/bin/gcc "$@"\n')
        imposter.chmod(0o755)
        other = c_identity(f"{tmp_path}:/usr/bin")
        assert other["identity"] != said["identity"]

    def test_another_package_version_is_another_identity_and_only_installed_ones_count(self, tmp_path, monkeypatch):
        status = tmp_path / "status"
        monkeypatch.setattr(_identity, "_DPKG", str(status))

        def digest(*packages):
            status.write_text("\n".join(f"Package: {n}\nStatus: {s}\nVersion: {v}\n" for n, s, v in packages) + "\n")
            os.utime(status, ns=(time.time_ns(), time.time_ns()))
            _identity._packages.clear()
            return _identity.packages_digest()

        there, gone = "install ok installed", "deinstall ok config-files"
        base = digest(("libssl-dev", there, "1"), ("bash", there, "5"))
        assert digest(("libssl-dev", there, "2"), ("bash", there, "5")) != base
        assert digest(("libssl-dev", there, "1"), ("bash", there, "6")) == base
        assert digest(("bash", there, "6"), ("zlib1g-dev", gone, "1"), ("libssl-dev", there, "1")) == base
        assert digest(("libssl-dev", there, "1"), ("zlib1g-dev", there, "1")) != base

    def test_a_header_that_no_package_owns_is_part_of_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_identity, "_LOCAL", (str(tmp_path / "include"), str(tmp_path / "lib")))
        (tmp_path / "include").mkdir()
        (tmp_path / "lib").mkdir()
        _identity._local.clear()
        empty = _identity.local_digest()
        (tmp_path / "include" / "own.h").write_text("#define OWN 1\n")
        _identity._local.clear()
        one = _identity.local_digest()
        assert one != empty
        (tmp_path / "include" / "own.h").write_text("#define OWN 2\n")
        _identity._local.clear()
        assert _identity.local_digest() not in (empty, one)

    def test_no_compiler_is_no_identity(self, tmp_path):
        assert c_identity(str(tmp_path)) == {}

    def test_te_01_rust_is_the_whole_of_its_verbose_version(self, tmp_path):
        rustc = tmp_path / "rustc"
        rustc.write_text("#!/bin/sh\nprintf 'rustc 1.2.3\\nbinary: rustc\\nhost: x\\n'\n")
        rustc.chmod(0o755)
        assert rust_identity(str(rustc)) == "rustc 1.2.3\nbinary: rustc\nhost: x"
        assert rust_identity(str(tmp_path / "none")) == ""

    def test_asking_a_compiler_that_hangs_ends(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_identity, "ASK_S", 0.3)
        rustc = tmp_path / "rustc"
        rustc.write_text("#!/bin/sh\nexec sleep 600\n")
        rustc.chmod(0o755)
        assert rust_identity(str(rustc)) == ""

    def test_both_sides_run_the_same_code(self):
        done = subprocess.run(
            [sys.executable, "-c", "import rch.project.tools, sys; print(open(rch.project.tools.__file__).read())"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert "from rch.worker.identity import c_identity" in done.stdout


def test_b_07_a_rust_toolchain_tells_which_standard_libraries_it_has(tmp_path):
    for triple in ("x86_64-unknown-linux-gnu", "wasm32-unknown-unknown"):
        place = tmp_path / "lib" / "rustlib" / triple / "lib"
        place.mkdir(parents=True)
        (place / "libcore-0123.rlib").write_bytes(b"")
    (tmp_path / "lib" / "rustlib" / "thumbv6m-none-eabi" / "lib").mkdir(parents=True)
    assert rust_parts(str(tmp_path))["targets"] == ["wasm32-unknown-unknown", "x86_64-unknown-linux-gnu"]
