"""Real projects built on a worker: the same bytes as here, and afterwards nothing to do."""

import os

import pytest

from rch.testing import inputs
from rch.testing.products import cargo_units, contents, make_steps, sent_out, succeeded

# What a build here, of the same tree at the same path with the same compiler, is compared with.
COMPILED = (b".o", b".lo", b".a", b".so", b".1.2.13", b"/lua", b"/luac", b"sqlite3", b"/rg", b"example", b"minigzip")


def compiled(tree):
    found = contents(tree, leave_out=("incremental",))  # whose names are rustc's own chance
    return {p: v for p, v in found.items() if v[0] == "f" and (b"/" + p).endswith(COMPILED)}


@pytest.mark.parametrize(
    ("name", "edited", "clean"),
    [
        ("zlib", "adler32.c", ("make", "clean")),
        ("lua5.4", "src/lutf8lib.c", ("make", "clean")),
        pytest.param("sqlite3", "shell.c", ("rm", "-f", "sqlite3"), marks=pytest.mark.slow),
    ],
)
class TestAProjectOfDebian:
    def test_is_built_there_as_here_and_then_has_nothing_to_do(self, any_state, real_input, name, edited, clean):
        build = inputs.INPUTS[name].build
        tree = real_input(name)
        sent_out(any_state, *build, cwd=tree, timeout_s=280)
        there = compiled(tree)
        assert inputs.INPUTS[name].product.encode() in there

        # Here, now, nothing is compiled or linked.
        assert make_steps(succeeded(any_state.run(*build, cwd=tree))) == []
        assert compiled(tree) == there

        # After one edit both sides do the same work, and come to the same bytes.
        with open(os.path.join(tree, edited), "a") as file:
            file.write("/* edited */\n")
        remote = make_steps(sent_out(any_state, *build, cwd=tree, timeout_s=280))
        assert remote
        assert make_steps(succeeded(any_state.run(*build, cwd=tree))) == []
        there = compiled(tree)
        os.utime(os.path.join(tree, edited))
        assert make_steps(succeeded(any_state.run(*build, cwd=tree, timeout_s=280))) == remote
        assert compiled(tree) == there

        # And a whole build here gives what the worker gave.
        succeeded(any_state.run(*clean, cwd=tree))
        succeeded(any_state.run(*build, cwd=tree, timeout_s=280))
        assert compiled(tree) == there


class RipgrepBuild:
    edited = "crates/core/logger.rs"

    def check(self, state, tree):
        build = (*inputs.INPUTS["ripgrep"].build, "-v")
        text = sent_out(state, *build, cwd=tree, timeout_s=290)
        units = cargo_units(text, "Compiling")
        assert len(units) > 30
        assert os.access(os.path.join(tree, inputs.INPUTS["ripgrep"].product), os.X_OK)
        assert b"pattern" in state.run(os.path.join(tree, "target/debug/rg"), "--help").stdout.lower()

        here = succeeded(state.run(*build, cwd=tree))
        assert cargo_units(here, "Compiling") == []
        assert set(cargo_units(here, "Fresh")) == set(units)

        with open(os.path.join(tree, self.edited), "a") as file:
            file.write("// edited\n")
        assert cargo_units(sent_out(state, *build, cwd=tree), "Compiling") == ["ripgrep"]
        there = compiled(tree)
        assert cargo_units(succeeded(state.run(*build, cwd=tree)), "Compiling") == []
        os.utime(os.path.join(tree, self.edited))
        assert cargo_units(succeeded(state.run(*build, cwd=tree)), "Compiling") == ["ripgrep"]
        assert compiled(tree) == there


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestRipgrep(RipgrepBuild):
    def test_and_its_dependencies_are_built_there_and_fresh_here(self, rch_state, real_input):
        self.check(rch_state, real_input("ripgrep"))

    @pytest.mark.heavy
    def test_the_same_on_a_container(self, container_state, real_input):
        self.check(container_state, real_input("ripgrep"))
