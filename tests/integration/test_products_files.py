"""Every kind of file and name goes there and comes back as it is; what changes here meanwhile is kept."""

import os
import subprocess
import time

import pytest

from rch.testing.products import contents, job, sent_out, succeeded, text_of

NAMES = [
    b"plain",
    b"with space",
    b"new\nline",
    b"\xff\xfe not utf-8",
    "é".encode(),
    b"-dash",
    b"*",
    b"'quote\"",
    b"a\\b",
    b"#1#",
]


@pytest.fixture
def project(tmp_path):
    """A project of make; a test writes the rules."""
    place = tmp_path / "a project"
    place.mkdir()
    return place


def build(state, project, script, **more):
    """Run *script* by ``make`` on the worker."""
    (project / "Makefile").write_text("all:\n\tsh ./script\n")
    (project / "script").write_text(script)
    return sent_out(state, "make", "-s", cwd=str(project), **more)


def put(directory, name, data=b"x\n"):
    with open(os.path.join(os.fsencode(directory), name), "wb") as file:
        file.write(data)


class TestWhatIsHere:
    """goes there as it is."""

    def test_names_of_every_kind(self, any_state, project):
        for name in NAMES:
            put(project, name, name)
        build(
            any_state,
            project,
            'mkdir out; for f in ./*; do if [ -f "$f" ]; then cp -p "$f" out/ || exit 1; fi; done\n',
        )
        found = contents(str(project / "out"))
        assert set(NAMES) <= set(found)
        top = contents(str(project))
        assert all(found[name] == top[name] for name in NAMES)

    def test_links_modes_and_empty_directories(self, rch_state, project):
        put(project, b"file")
        (project / "empty" / "below").mkdir(parents=True)
        (project / "inside").symlink_to("file")
        (project / "dangling").symlink_to("nowhere/at all")
        (project / "to a directory").symlink_to("empty")
        os.link(project / "file", project / "second name")
        put(project, b"program", b"#!/bin/sh\necho ran\n")
        (project / "program").chmod(0o755)
        put(project, b"read-only")
        (project / "read-only").chmod(0o444)
        script = (
            'readlink inside; readlink dangling; readlink "to a directory"; test file -ef "second name" && echo same; '
            "./program; stat -c %a read-only program; test -d empty/below && echo directory\n"
        )
        seen = build(rch_state, project, script)
        assert seen.splitlines() == [
            *("file", "nowhere/at all", "empty", "same", "ran", "444", "755", "directory")
        ]  # fmt: skip
        assert os.path.samefile(project / "file", project / "second name")

    def test_a_link_out_of_the_root_brings_its_target_or_keeps_the_command_here(self, rch_state, project, tmp_path):
        outside = tmp_path / "outside"
        outside.mkdir()
        put(outside, b"data", b"from outside\n")
        (project / "out").symlink_to(outside)
        (project / "Makefile").write_text("all:\n\tcat out/data\n")
        done = rch_state.exec("make", "-s", cwd=str(project))
        assert done.returncode == 0
        assert done.stdout == b"from outside\n"

    def test_a_file_becomes_a_directory_and_back_and_deletions_follow(self, rch_state, project):
        put(project, b"thing", b"a file\n")
        (project / "gone").mkdir()
        put(project / "gone", b"below")
        script = "if [ -d thing ]; then cat thing/in; else cat thing; fi; ls -A gone 2>/dev/null; true\n"
        assert build(rch_state, project, script) == "a file\nbelow\n"
        (project / "thing").unlink()
        (project / "thing").mkdir()
        put(project / "thing", b"in", b"inside\n")
        (project / "gone" / "below").unlink()
        (project / "gone").rmdir()
        assert build(rch_state, project, script) == "inside\n"
        (project / "thing" / "in").unlink()
        (project / "thing").rmdir()
        put(project, b"thing", b"a file again\n")
        assert build(rch_state, project, script) == "a file again\n"


class TestWhatTheJobLeaves:
    """comes back as it is."""

    def test_names_links_modes_and_deletions(self, any_state, project):
        put(project, b"old")
        (project / "old directory").mkdir()
        put(project / "old directory", b"x")
        put(project, b"becomes a directory")
        script = (
            'rm old; rm -r "old directory"; rm "becomes a directory"; mkdir "becomes a directory"; '
            'echo in >"becomes a directory/in"; printf x >"$(printf "\\377")"; printf y >"new\nline"; '
            "mkdir -p empty/er; echo '#!/bin/sh' >tool; chmod 755 tool; ln -s tool link; ln -s /nowhere dangling; "
            "ln tool second; chmod 600 script\n"
        )
        build(any_state, project, script)
        found = contents(str(project))
        assert not {b"old", b"old directory"} & set(found)
        assert found[b"becomes a directory"][0] == "d"
        assert found[b"becomes a directory/in"][0] == "f"
        assert found[b"\xff"][0] == found[b"new\nline"][0] == "f"
        assert found[b"empty/er"][0] == "d"
        assert found[b"tool"][:2] == ("f", 0o755)
        assert found[b"link"] == ("l", 0, "tool")
        assert found[b"dangling"] == ("l", 0, "/nowhere")
        assert os.path.samefile(project / "tool", project / "second")
        assert found[b"script"][1] == 0o600

    def test_after_a_failure_too(self, rch_state, project):
        (project / "Makefile").write_text("all:\n\techo made >made; echo changed >kept; exit 3\n")
        put(project, b"kept")
        build_ok = rch_state.exec("make", "true", cwd=str(project))  # red, and repeated here: never green on that class
        assert build_ok.returncode == 2
        succeeded(rch_state.exec("make", "-v", cwd=str(project)))
        done = rch_state.exec("make", cwd=str(project), options=("--require-remote",))
        assert done.returncode == 2
        assert job(rch_state)["worker"] != "here"
        assert (project / "made").read_text() == "made\n"
        assert (project / "kept").read_text() == "changed\n"

    def test_times_to_the_nanosecond(self, rch_state, project):
        build(rch_state, project, "echo x >made; touch -d '2020-02-02 02:02:02.123456789Z' made\n")
        assert os.stat(project / "made").st_mtime_ns == 1_580_608_922_123_456_789


class TestLarge:
    @pytest.mark.slow
    def test_a_file_of_300_mb_goes_there_and_one_comes_back(self, rch_state, project):
        block = os.urandom(1 << 20)
        with open(project / "large", "wb") as file:
            file.writelines(block[number:] + block[:number] for number in range(300))
        build(
            rch_state,
            project,
            "tac --version >/dev/null; cat large large | tail -c 300M >copy; rm large\n",
            timeout_s=280,
        )
        with open(project / "copy", "rb") as file:
            for number in range(300):
                assert file.read(1 << 20) == block[number:] + block[:number]
            assert not file.read()
        assert not (project / "large").exists()
        sent_out(rch_state, "make", "-s", "-n", cwd=str(project), options=("--require-remote",))
        newest = job(rch_state)
        assert (newest["pushed"]["files"], newest["returned"]["files"]) == (0, 0)

    @pytest.mark.slow
    def test_50_000_small_files(self, rch_state, project):
        for top in range(50):
            (project / f"d{top}").mkdir()
            for number in range(1000):
                put(project / f"d{top}", b"f%d" % number, b"%d %d\n" % (top, number))
        script = "cat d*/f* | sort | cksum; mkdir out; for d in d*; do cp -p $d/f1 out/$d; done; rm -r d7\n"
        seen = build(rch_state, project, script, timeout_s=280)
        lines = b"".join(sorted(b"%d %d\n" % (t, n) for t in range(50) for n in range(1000)))
        here = subprocess.run(["sh", "-c", "LC_ALL=C sort | cksum"], input=lines, capture_output=True, check=True)
        assert seen.split()[1] == here.stdout.decode().split()[1]
        assert not (project / "d7").exists()
        assert len(os.listdir(project / "out")) == 50
        sent_out(rch_state, "make", "-s", "-n", cwd=str(project), options=("--require-remote",))
        newest = job(rch_state)
        assert (newest["pushed"]["files"], newest["pushed"]["processes"]) == (0, 0)


class TestAnEditWhileTheCommandRuns:
    def start(self, state, project, script):
        (project / "Makefile").write_text("all:\n\tsh ./script\n")
        (project / "script").write_text(script)
        process = subprocess.Popen(
            ["rch", "exec", "--require-remote", "--", "make", "-s"], cwd=project, env=state.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout.readline() == b"running\n"
        return process

    def end(self, process):
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def test_is_kept_and_the_conflict_is_named(self, any_state, project):
        put(project, b"generated.c", b"old\n")
        script = "echo running; n=0; while [ $n -lt 30 ]; do sleep 0.1; n=$((n+1)); done; echo new >generated.c; echo done >made\n"
        process = self.start(any_state, project, script)
        (project / "generated.c").write_text("mine\n")
        done = self.end(process)
        assert (project / "generated.c").read_text() == "mine\n"
        assert (project / "made").read_text() == "done\n"
        assert "generated.c" in text_of(done)
        assert done.returncode == 0

    def test_of_another_file_is_kept_and_seen_by_the_next_build(self, rch_state, project_copy):
        place = project_copy("hello-c")
        with open(os.path.join(place, "Makefile"), "a") as file:
            file.write("\nslow: hello\n\t@echo running; sleep 2\n")
        process = subprocess.Popen(
            ["rch", "exec", "--require-remote", "--", "make", "slow"], cwd=place, env=rch_state.environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        while process.stdout.readline() != b"running\n":
            assert process.poll() is None
        time.sleep(0.3)
        with open(os.path.join(place, "greet.c"), "a") as file:
            file.write("/* while it ran */\n")
        self.end(process)
        assert process.returncode == 0
        with open(os.path.join(place, "greet.c")) as file:
            assert "while it ran" in file.read()
        # What came back is older than the edit: make here sees that there is something to do.
        assert "greet.o" in succeeded(rch_state.run("make", "-n", cwd=place))
        assert "greet.o" in sent_out(rch_state, "make", cwd=place)
        assert "up to date" in succeeded(rch_state.run("make", cwd=place))
