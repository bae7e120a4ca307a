"""What a job can see and reach on the worker, what dies with it, and how many run at a time."""

import os
import secrets
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rch.testing.callers import alive, cache_dir, caller, slots_used, token, until
from rch.testing.variants import vary

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="directories in /srv and the like need root; CI (root) runs it")


@pytest.fixture
def there(any_state):
    def run(cwd, script, **more):
        return any_state.exec("sh", "-c", script, cwd=cwd, options=("--worker", any_state.lab.worker.name), **more)

    run.state = any_state
    return run


class TestAJob:
    @pytest.fixture
    def other(self, there, tmp_path):
        """Another project whose job is running right now: (its name, the mark of its process)."""
        name = f"other-{secrets.token_hex(6)}"
        place = tmp_path / name
        place.mkdir()
        (place / f"{name}-file").write_text("secret\n")
        mark = token()
        words = ("rch", "exec", "--worker", there.state.lab.worker.name, "--", "sh", "-c", f"echo begun; sleep {mark}")
        with caller(there.state, *words, cwd=str(place)) as running:
            running.wait_for(b"begun")
            yield name, mark
            running.signal(15)
            running.end()

    @pytest.fixture
    def mine(self, tmp_path):
        place = tmp_path / "mine"
        place.mkdir()
        return place

    def test_se_finds_no_name_no_file_and_no_process_of_another_project(self, there, other, mine):
        name, mark = other
        assert alive(mark)
        done = there(
            mine,
            f"find / -name '*{name}*' -not -path '/proc/*' 2>/dev/null; "
            f"cat /proc/mounts /proc/*/mountinfo /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n' "
            f"| grep -F -e {name[:6]}'{name[6:]}' -e {mark[:4]}'{mark[4:]}' | grep -v grep | grep -v find; "
            "cat /proc/[0-9]*/comm | sort | uniq -c | sort -rn | head -20; echo looked",
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout.decode()
        assert said.endswith("looked\n")
        assert f"{name}-file" not in said
        assert "sleep" not in said
        assert "sshd" not in said

    def test_ends_no_process_but_its_own(self, there, other, mine):
        _, mark = other
        there(mine, "kill -9 -1")
        assert alive(mark)
        done = there(mine, "echo works")
        assert done.stdout == b"works\n"

    def test_reads_neither_the_accounts_keys_nor_the_cache(self, there, mine):
        cache = cache_dir(there.state.lab.worker)
        paths = [f"{cache}/jobs", f"{cache}/roots", f"{cache}/bin", "/home/rch/.ssh", "/root/.ssh", "/etc/shadow"]
        done = there(mine, "; ".join(f"cat {path} 2>/dev/null; ls -A {path}/ 2>/dev/null" for path in paths))
        assert done.stdout == b"", done.stdout

    def test_has_no_way_to_write_what_outlives_it(self, there, mine):
        script = "for d in / /usr /usr/bin /etc /opt /bin /lib /home /var /run; do :>$d/rch-was-here && echo $d; done"
        there(mine, f"{script} 2>/dev/null")
        done = there(mine, "find / -name rch-was-here -not -path '/proc/*' 2>/dev/null; echo looked")
        assert done.stdout == b"looked\n"
        assert not [
            d for d in ("/", "/usr", "/etc", "/opt", "/home", "/var", "/run") if os.path.exists(d + "/rch-was-here")
        ]

    def test_ex_02_takes_everything_along_that_it_started(self, there, mine):
        mark = token()
        script = (
            f"sleep {mark} & setsid sleep {mark} & (setsid sh -c 'sleep {mark} &' &) ; "
            f"nohup sleep {mark} >/dev/null 2>&1 & sleep 0.3; echo done"
        )
        started = time.monotonic()
        done = there(mine, script)
        assert (done.returncode, done.stdout) == (0, b"done\n"), done.stderr
        assert time.monotonic() - started < 30
        until(lambda: not alive(mark), "everything is gone")
        assert not slots_used(there.state.lab.worker)


@ROOT
class TestARoot:
    @pytest.fixture
    def below(self):
        """A function: directory -> a new project below it, with a space and an umlaut in its name."""
        made = []

        def make(directory):
            place = os.path.join(directory, f"rch tést {secrets.token_hex(4)}")
            os.makedirs(os.path.join(place, "unter Ordner"))
            made.append(place)
            with open(os.path.join(place, "Makefile"), "w", encoding="utf-8") as file:
                file.write("product: source\n\t@pwd\n\t@cp source product\n")
            with open(os.path.join(place, "source"), "w", encoding="utf-8") as file:
                file.write("content\n")
            return place

        yield make
        for place in made:
            shutil.rmtree(place)

    @pytest.mark.parametrize("directory", ["/home", "/srv", "/opt", "/root", "/mnt", "/tmp", "/var/tmp"])
    def test_pm_08_anywhere_is_seen_at_its_own_path(self, rch_state, below, directory):
        if not os.path.isdir(directory):
            pytest.skip(f"there is no {directory} here; Debian has it")
        place = below(directory)
        done = rch_state.exec("make", cwd=place, options=("--require-remote",))
        assert (done.returncode, done.stdout.decode()) == (0, place + "\n"), done.stderr
        with open(os.path.join(place, "product"), encoding="utf-8") as file:
            assert file.read() == "content\n"

    @pytest.mark.parametrize("directory", ["/usr/src", "/etc"])
    def test_pm_08_in_the_systems_own_directories_is_built_here_with_the_reason(self, rch_state, below, directory):
        place = below(directory)
        done = rch_state.exec("make", cwd=place)
        assert (done.returncode, done.stdout.decode()) == (0, place + "\n"), done.stderr
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("[rch] local: "), line
        assert directory.split("/")[1] in line
        os.unlink(os.path.join(place, "product"))
        done = rch_state.exec("make", cwd=place, options=("--require-remote",))
        assert (done.returncode, done.stdout) == (103, b""), done.stderr


class TestTwoWorkstations:
    def test_sq_01_never_run_more_than_the_workers_slots(self, embedded_lab, new_state, tmp_path):
        states = [new_state(embedded_lab), new_state(embedded_lab)]
        for state in states:
            vary(state, rch_slots=2)
        mark = f"1.{secrets.randbelow(10**9):09d}"
        projects = [tmp_path / f"p{number}" for number in range(6)]
        for project in projects:
            project.mkdir()

        def one(number):
            words = ("sh", "-c", f"sleep {mark}; echo {number}")
            done = states[number % 2].exec(*words, cwd=projects[number], options=("--worker", "lab1"))
            return done.returncode, done.stdout, done.stderr

        seen = []
        with ThreadPoolExecutor(6) as pool:
            futures = [pool.submit(one, number) for number in range(6)]
            while not all(future.done() for future in futures):
                seen.append(len(alive(mark)))
                time.sleep(0.02)
        assert [future.result() for future in futures] == [(0, b"%d\n" % n, b"") for n in range(6)]
        assert max(seen) == 2  # both slots were used, and never a third
