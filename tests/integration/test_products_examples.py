"""The examples, built on a worker: nothing to do here afterwards, exactly the dependants after an edit, few requests."""

import os

import pytest

from rch.testing.products import cargo_units, digests, job, make_steps, ninja_steps, sent_out, succeeded


def edit(place, path, text="\n"):
    with open(os.path.join(place, path), "a") as file:
        file.write(text)


class TestHelloC:
    BUILT = ("hello", "main.o", "greet.o", "checksum.o", "messages.h")

    def test_by_make(self, any_state, project_copy):
        place = project_copy("hello-c")
        sent_out(any_state, "make", cwd=place)
        there = digests(place, self.BUILT)
        assert succeeded(any_state.run("make", cwd=place)) == "make: 'hello' is up to date.\n"
        assert succeeded(any_state.run("./hello", "you", cwd=place)).startswith("Hello, you!")

        edit(place, "checksum.h")
        assert make_steps(sent_out(any_state, "make", cwd=place)) == ["checksum.o", "hello", "main.o"]
        assert succeeded(any_state.run("make", cwd=place)) == "make: 'hello' is up to date.\n"
        edit(place, "greet.c")
        assert make_steps(succeeded(any_state.run("make", cwd=place))) == ["greet.o", "hello"]
        assert make_steps(sent_out(any_state, "make", cwd=place)) == []  # what was built here is an input there

        succeeded(any_state.run("make", "clean", cwd=place))
        succeeded(any_state.run("make", cwd=place))
        assert digests(place, ["main.o", "messages.h"]) != {}
        assert digests(place, ["messages.h"]) == {"messages.h": there["messages.h"]}
        here = digests(place, self.BUILT)
        succeeded(any_state.run("make", "clean", cwd=place))
        sent_out(any_state, "make", cwd=place)
        assert digests(place, self.BUILT) == here

    def test_by_cmake_and_ninja(self, any_state, project_copy):
        place = project_copy("hello-c")
        succeeded(any_state.run("cmake", "-S", ".", "-B", "build", "-G", "Ninja", cwd=place))
        everything = ninja_steps(sent_out(any_state, "ninja", "-C", "build", cwd=place))
        assert len(everything) >= 6
        assert "no work to do" in succeeded(any_state.run("ninja", "-C", "build", cwd=place))
        assert succeeded(any_state.run("build/hello", cwd=place)).startswith("Hello, world!")

        edit(place, "checksum.h")
        remote = ninja_steps(sent_out(any_state, "cmake", "--build", "build", cwd=place))
        assert "no work to do" in succeeded(any_state.run("ninja", "-C", "build", cwd=place))
        os.utime(os.path.join(place, "checksum.h"))
        local = ninja_steps(succeeded(any_state.run("ninja", "-C", "build", cwd=place)))
        assert remote == local
        assert 2 <= len(local) < len(everything)


class TestTheWorkspace:
    def build(self, state, place):
        return cargo_units(sent_out(state, "cargo", "build", "-v", "--locked", cwd=place), "Compiling")

    def build_here(self, state, place):
        return cargo_units(succeeded(state.run("cargo", "build", "-v", "--locked", cwd=place)), "Compiling")

    def test_by_cargo(self, any_state, project_copy):
        place = project_copy("workspace")
        assert self.build(any_state, place) == ["app", "itoa", "shared-greeting", "shout", "words"]
        assert self.build_here(any_state, place) == []
        assert succeeded(any_state.run("target/debug/app", "you", cwd=place)).startswith("Hello, you!")
        for path, dependants in (
            ("crates/words/src/lib.rs", ["app", "words"]),
            ("../shared-greeting/src/lib.rs", ["app", "shared-greeting"]),
            ("crates/words/words.txt", ["app", "words"]),  # what its build script reads
        ):
            edit(place, path, "" if path.endswith(".txt") else "// edited\n")
            os.utime(os.path.join(place, path))
            assert self.build(any_state, place) == dependants
            assert self.build_here(any_state, place) == []
            os.utime(os.path.join(place, path))
            assert self.build_here(any_state, place) == dependants
            assert self.build(any_state, place) == dependants

    def test_its_tests_pass_there_and_its_lock_file_stays(self, rch_state, project_copy):
        place = project_copy("workspace")
        before = digests(place, ["Cargo.lock"])
        assert "2 passed" in sent_out(rch_state, "cargo", "test", "--locked", cwd=place)
        assert digests(place, ["Cargo.lock"]) == before


class TestWhatACommandCosts:
    @pytest.mark.parametrize(("example", "command"), [("hello-c", ("make",)), ("workspace", ("cargo", "build"))])
    def test_a_warm_command_with_nothing_to_do_sends_nothing_in_two_requests_and_its_reads(
        self, rch_state, project_copy, example, command
    ):
        place = project_copy(example)
        roots = 2 if example == "workspace" else 1
        sent_out(rch_state, *command, cwd=place)
        sent_out(rch_state, *command, cwd=place)
        newest = job(rch_state)
        pushed, returned = newest["pushed"], newest["returned"]
        assert (pushed["files"], pushed["bytes"], pushed["deletes"], pushed["processes"]) == (0, 0, 0, 0)
        assert (returned["files"], returned["bytes"], returned["deletes"], returned["processes"]) == (0, 0, 0, 0)
        assert pushed["requests"] == 1  # locks, slots, changes and start
        assert returned["requests"] == roots  # one delta each

    def test_an_edit_of_one_file_sends_one_file_and_starts_no_rsync(self, rch_state, project_copy):
        place = project_copy("hello-c")
        sent_out(rch_state, "make", cwd=place)
        edit(place, "greet.c", "int added = 42;\n")
        sent_out(rch_state, "make", cwd=place)
        newest = job(rch_state)
        size = os.path.getsize(os.path.join(place, "greet.c"))
        assert newest["pushed"] == {**newest["pushed"], "files": 1, "bytes": size, "requests": 1, "processes": 0}
        assert newest["returned"]["files"] == 2  # greet.o and hello; greet.d says what it said
        assert newest["returned"]["requests"] == 1
        assert newest["returned"]["processes"] == 0
