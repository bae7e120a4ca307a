"""A project that builds only here: red there once, repeated here, remembered, and said in one line."""

import pytest

from rch.testing.products import job, sent_out, succeeded, text_of


@pytest.fixture
def project(tmp_path):
    """Needs a header that lies in a directory of this machine which is no part of the project."""
    include = tmp_path / "only here"
    include.mkdir()
    (include / "special.h").write_text("#define ANSWER 42\n")
    place = tmp_path / "project"
    place.mkdir()
    (place / "prog.c").write_text("#include <special.h>\nint main(void) { return ANSWER - 42; }\n")
    (place / "Makefile").write_text(f"prog: prog.c\n\tcc -I'{include}' -o prog prog.c\n")
    return place


def reasons(done):
    return [line for line in done.stderr.decode().splitlines() if line.startswith("[rch]")]


class TestAHeaderThatOnlyThisMachineHas:
    def test_hb_08_is_reported_by_the_run_here_and_the_project_stays_here(self, any_state, project):
        done = any_state.exec("make", cwd=str(project))
        assert done.returncode == 0, text_of(done)
        assert job(any_state)["worker"] == "here"
        # Of the failed attempt nothing is to be seen but one line.
        assert b"special.h" not in done.stderr
        assert done.stdout.count(b"cc -I") == 1
        (line,) = reasons(done)
        assert "repeated here" in line
        succeeded(any_state.run("./prog", cwd=str(project)))

        (project / "prog.c").write_text("#include <special.h>\nint main(void) { return 0 * ANSWER; }\n")
        done = any_state.exec("make", cwd=str(project))
        assert done.returncode == 0
        (line,) = reasons(done)
        assert "unportable" in line
        # From then on no worker was tried: one job, here.
        assert job(any_state)["reason"] == "unportable"
        assert succeeded(any_state.run("make", cwd=str(project))).endswith("'prog' is up to date.\n")

        # Whoever has put it right there lets rch try again.
        any_state.run("rch", "doctor", "--no-workers", "--fix")
        (project / "prog.c").write_text("int main(void) { return 0; }\n")
        sent_out(any_state, "make", cwd=str(project))

    def test_hb_08_what_is_red_here_too_is_red_once_and_not_remembered(self, rch_state, project):
        (project / "prog.c").write_text("int main(void) { return undeclared; }\n")
        done = rch_state.exec("make", cwd=str(project))
        assert done.returncode == 2
        assert done.stderr.count(b"error:") == 1
        (project / "prog.c").write_text("int main(void) { return 0; }\n")
        done = rch_state.exec("make", cwd=str(project))
        assert done.returncode == 0
        assert reasons(done) == []
        assert job(rch_state)["worker"] != "here"
