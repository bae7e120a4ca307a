"""A job under its supervisor in a real sandbox: how it ends, what it says, what it sees, what outlives it."""

import hashlib
import os
import signal
import time

import pytest

from rch.testing.worker_process import WorkerRefused, minimal_spec
from rch.testing.worker_root import PATH, WorkerRoot, new_job
from rch.testing.worker_root import file_item as f
from rch.worker.protocol import LOG_PAYLOAD_MAX

TORTURE = [
    "",
    " ",
    "a b",
    "$HOME",
    "`id`",
    "*",
    "'",
    '"',
    "\\",
    "\n",
    "-n",
    "--",
    "ü",
    "\udcff\udc80",
    "\t",
    "#",
    ";",
    "&",
]


def python(source, *words):
    return ["/usr/bin/python3", "-I", "-S", "-c", source, *words]


def wait_for(what, limit_s=30.0):
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def processes_with(mark):
    """Processes of this machine whose command line holds *mark*, zombies not counted."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if mark.encode() in file.read():
                        found.append(int(name))
            except OSError:
                continue
    return found


class TestTheEndOfAJob:
    @pytest.mark.parametrize("code", [0, 1, 42, 101, 126, 127, 130, 137, 139, 255])
    def test_an_exit_status_arrives_as_it_was(self, worker, job, code):
        assert worker.run(job, ["sh", "-c", f"exit {code}"]).ending == (code, None, "exited")

    @pytest.mark.parametrize("name", ["KILL", "SEGV", "TERM", "INT", "ABRT", "PIPE", "HUP"])
    def test_ex_05_death_by_a_signal_is_told_apart_from_its_exit_status(self, worker, job, name):
        number = getattr(signal, "SIG" + name)
        result = worker.run(job, ["sh", "-c", f"kill -{name} $$"])
        assert result.ending == (None, number, "exited")
        assert result.state == "failed"

    def test_a_program_that_is_not_there_is_127_and_said(self, worker, job):
        result = worker.run(job, ["no-such-program-anywhere"])
        assert result.ending == (127, None, "setup")
        assert result.rc["message"] == "command not found"

    def test_a_program_that_cannot_be_executed_is_126(self, worker, job):
        assert worker.run(job, ["/etc/passwd"]).ending == (126, None, "setup")
        assert worker.run(new_job(), ["/usr"]).ending == (126, None, "setup")

    def test_a_script_without_interpreter_line_runs_as_a_shell_runs_it(self, root):
        root.sync(f("run", b"echo ran $1\nexit 5\n", mode=0o755))
        result = root.run("./run x; echo $?")
        assert result.stdout == b"ran x\n5\n"
        result = root.run("", argv=["./run", "y"])
        assert (result.stdout, result.ending) == (b"ran y\n", (5, None, "exited"))

    def test_a_missing_working_directory_is_set_up_not_the_users_code(self, worker, job):
        result = worker.run(job, ["true"], cwd="/not/there")
        assert result.ending == (None, None, "setup")
        assert "working directory" in result.rc["message"]

    def test_a_mount_that_cannot_be_made_is_set_up_with_bubblewraps_words(self, worker, job):
        binds = [{"source": "/nowhere/at/all", "path": "/data", "mode": "ro"}]
        result = worker.run(job, ["true"], binds=binds)
        assert result.ending == (None, None, "setup")
        assert "/nowhere/at/all" in result.rc["message"]

    def test_times_and_usage_are_the_jobs(self, worker, job):
        before = time.time_ns()
        rc = worker.run(job, python("x = bytearray(50 << 20)\nn = 0\nwhile n < 3000000: n += 1")).rc
        assert before - 10**9 <= rc["started_ns"] <= rc["ended_ns"] <= time.time_ns() + 10**9
        assert rc["max_rss"] > 50 << 20
        assert rc["user_ms"] > 0

    def test_ex_01_a_job_under_a_time_limit_ends_when_it_ends(self, worker, job):
        began = time.monotonic()
        assert worker.run(job, ["true"], timeout_s=300).ending == (0, None, "exited")
        assert time.monotonic() - began < 10


class TestOutput:
    def test_os_01_twenty_thousand_lines_arrive_whole(self, worker, job):
        wanted = b"".join(b"line %d\n" % n for n in range(20000))
        result = worker.run(job, python("for n in range(20000): print('line', n)"))
        assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(wanted).digest()
        assert result.stderr == b""

    def test_fifty_megabytes_arrive_whole_in_frames_of_the_limit(self, worker, job):
        source = (
            "import sys, hashlib\nh = hashlib.sha256()\n"
            "for n in range(50):\n"
            "  b = hashlib.sha256(b'%d' % n).digest() * 32768\n  h.update(b)\n  sys.stdout.buffer.write(b)\n"
            "sys.stderr.write(h.hexdigest())"
        )
        result = worker.run(job, ["/usr/bin/python3", "-c", source])
        assert len(result.stdout) == 50 << 20
        assert hashlib.sha256(result.stdout).hexdigest().encode() == result.stderr
        assert max(len(data) for _, _, data in result.frames) <= LOG_PAYLOAD_MAX

    def test_bytes_are_bytes(self, worker, job):
        blob = bytes(range(256)) * 3 + b"\xff\xfe no newline"
        source = f"import sys; sys.stdout.buffer.write({blob!r})"
        assert worker.run(job, python(source)).stdout == blob

    def test_streams_stay_apart_and_each_in_order(self, worker, job):
        result = worker.run(job, ["sh", "-c", "for i in 1 2 3; do echo o$i; echo e$i >&2; done"])
        assert (result.stdout, result.stderr) == (b"o1\no2\no3\n", b"e1\ne2\ne3\n")

    def test_os_09_one_file_for_both_keeps_four_thousand_lines_in_order(self, worker, job):
        source = "import os\nfor n in range(2000):\n  os.write(1, b'out %d\\n' % n)\n  os.write(2, b'err %d\\n' % n)\n"
        result = worker.run(job, python("import posix as os\n" + source[10:]), fds={"1": "pipe", "2": "same"})
        wanted = b"".join(b"out %d\nerr %d\n" % (n, n) for n in range(2000))
        assert result.stdout == wanted
        assert result.stderr == b""

    def test_what_a_leftover_would_say_later_does_not_hold_the_end_back(self, worker, job):
        began = time.monotonic()
        result = worker.run(job, ["sh", "-c", "(sleep 600; echo late) & echo now"])
        assert result.stdout == b"now\n"
        assert time.monotonic() - began < 30

    def test_os_07_a_line_can_be_read_while_the_job_runs(self, worker, job):
        worker.start(job, ["sh", "-c", "echo early; sleep 600"])
        answer = worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        assert answer.body.endswith(b"early\n")
        assert (answer.fields["ended"], answer.fields["state"]) == (False, "running")
        worker.request("signal", {"job": job, "signal": "KILL"})
        assert worker.follow(job).ending == (None, signal.SIGKILL, "killed")

    def test_a_read_without_news_waits_as_long_as_asked(self, worker, job):
        worker.start(job, ["sleep", "600"])
        wait_for(lambda: worker.request("status", {"job": job}).fields["state"] == "running")
        began = time.monotonic()
        answer = worker.request("read", {"job": job, "offset": 0, "wait_s": 0.5})
        assert (answer.body, answer.fields["next"], answer.fields["ended"]) == (b"", 0, False)
        assert 0.4 < time.monotonic() - began < 20
        worker.request("signal", {"job": job, "signal": "KILL"})

    def test_os_03_every_frame_boundary_is_an_offset_and_nothing_else(self, worker, job):
        whole = worker.run(job, ["sh", "-c", "echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three"])
        offset, seen = 0, []
        while True:
            answer = worker.request("read", {"job": job, "offset": offset, "max": 1})
            if not answer.body:
                break
            seen.append(answer.body)
            offset = answer.fields["next"]
        assert len(seen) == len(whole.frames) == 3
        assert offset == whole.next
        for bad in (1, 8, whole.next + 1):
            with pytest.raises(WorkerRefused, match="bad-request"):
                worker.request("read", {"job": job, "offset": bad})


class TestInput:
    def test_stdin_arrives_with_its_end(self, worker, job):
        worker.start(job, ["sha256sum"], fds={"0": "pipe"})
        data = os.urandom(3 << 20)
        position = 0
        while position < len(data):
            piece = data[position : position + (1 << 20)]
            accepted = worker.request("stdin", {"job": job}, piece).fields["accepted"]
            position += accepted
            if accepted < len(piece):
                time.sleep(0.01)
        worker.request("stdin", {"job": job, "eof": True})
        assert worker.follow(job).stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()

    def test_a_job_that_does_not_read_takes_one_megabyte_and_blocks_nobody(self, worker, job):
        worker.start(job, ["sleep", "600"], fds={"0": "pipe"})
        block = bytes(1 << 20)
        accepted = [worker.request("stdin", {"job": job}, block).fields["accepted"] for _ in range(3)]
        assert (1 << 20) <= sum(accepted) <= (1 << 20) + (1 << 17)
        assert accepted[-1] == 0
        worker.request("ping")
        worker.request("signal", {"job": job, "signal": "KILL"})

    def test_a_job_that_closed_its_stdin_takes_everything_into_nothing(self, worker, job):
        worker.start(job, ["sh", "-c", "exec <&-; echo closed; sleep 600"], fds={"0": "pipe"})
        worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        block = bytes(1 << 20)
        assert sum(worker.request("stdin", {"job": job}, block).fields["accepted"] for _ in range(4)) == 4 << 20
        worker.request("signal", {"job": job, "signal": "KILL"})

    def test_input_sent_before_the_process_exists_is_kept(self, worker, job):
        worker.start(job, ["cat"], fds={"0": "pipe"})
        worker.request("stdin", {"job": job, "eof": True}, b"early bird")
        assert worker.follow(job).stdout == b"early bird"

    def test_without_a_pipe_stdin_is_empty(self, worker, job):
        assert worker.run(job, ["cat"]).ending == (0, None, "exited")


class TestATerminal:
    def test_each_descriptor_is_one_exactly_where_the_caller_has_one(self, worker, job):
        script = "for n in 0 1 2; do if [ -t $n ]; then echo $n; fi; done >&2"
        fds = {"0": "null", "1": "tty", "2": "pipe"}
        assert (
            worker.run(job, ["sh", "-c", "for n in 0 1; do [ -t $n ] && echo $n >&2; done; true"], fds=fds).stderr
            == b"1\n"
        )
        fds = {"0": "tty", "1": "tty", "2": "tty"}
        assert worker.run(new_job(), ["sh", "-c", script], fds=fds).stdout.split() == [b"0", b"1", b"2"]

    def test_its_size_and_name_are_right_and_it_is_the_controlling_one(self, worker, job):
        script = "stty size; tty; echo hello > /dev/tty"
        fds = {"0": "tty", "1": "tty", "2": "tty"}
        result = worker.run(job, ["sh", "-c", script], fds=fds, rows=33, cols=121)
        assert result.stdout.split() == [b"33", b"121", b"/dev/pts/0", b"hello"]

    def test_output_alone_is_not_translated(self, worker, job):
        result = worker.run(job, ["printf", "a\\nb"], fds={"1": "tty", "2": "tty"})
        assert result.stdout == b"a\nb"

    def test_a_resize_arrives_as_winch(self, worker, job):
        script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
        worker.start(job, ["sh", "-c", script], fds={"0": "tty", "1": "tty", "2": "tty"}, rows=10, cols=20)
        first = worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        worker.request("resize", {"job": job, "rows": 44, "cols": 55})
        assert worker.follow(job, first.fields["next"]).stdout.split() == [b"44", b"55"]

    def test_an_interrupt_goes_to_what_is_in_the_foreground(self, worker, job):
        script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"
        worker.start(job, ["sh", "-c", script], fds={"0": "tty", "1": "tty", "2": "tty"})
        first = worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        worker.request("signal", {"job": job, "signal": "INT"})
        result = worker.follow(job, first.fields["next"])
        assert result.ending == (9, None, "exited")
        assert b"caught" in result.stdout

    def test_typed_input_arrives_and_its_end_too(self, worker, job):
        worker.start(job, ["sh", "-c", "stty -echo; echo ready; cat"], fds={"0": "tty", "1": "tty", "2": "tty"})
        first = worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        worker.request("stdin", {"job": job, "eof": True}, b"typed\n")
        assert worker.follow(job, first.fields["next"]).stdout == b"typed\r\n"

    def test_the_last_words_are_not_lost_when_the_job_ends_at_once(self, worker):
        for _ in range(5):
            result = worker.run(new_job(), python("import posix; posix.write(1, b'x' * 60000)"), fds={"1": "tty"})
            assert len(result.stdout) == 60000


class TestWhatAJobGets:
    def test_argument_torture(self, worker, job):
        source = "import sys\nfor w in sys.argv[1:]: sys.stdout.write(ascii(w) + '\\n')"
        result = worker.run(job, ["/usr/bin/python3", "-X", "utf8", "-I", "-S", "-c", source, *TORTURE])
        assert result.stdout.decode().splitlines() == [ascii(word) for word in TORTURE]

    def test_the_environment_is_exactly_what_was_given(self, worker, job):
        env = {"PATH": "/usr/bin:/bin", "EMPTY": "", "LINES_": "a\nb", "Ü": "ü\udcff", "PYTHONHOME_": "x"}
        result = worker.run(job, ["env", "-0"], env=env)
        given = {**env, "RCH_ON_WORKER": "1", "RCH_JOB": job}
        wanted = {f"{name}={value}".encode("utf-8", "surrogateescape") for name, value in given.items()}
        assert set(result.stdout.split(b"\0")) == wanted | {b""}

    def test_pm_09_it_is_the_caller_on_the_callers_machine(self, worker, job):
        script = "id -un; id -u; id -gn; id -g; hostname; umask; pwd; echo ~; getent hosts workstation | cut -d' ' -f1"
        result = worker.run(job, ["sh", "-c", script], umask=0o027)
        said = result.stdout.decode().split("\n")
        assert said[:8] == ["caller", "1234", "callers", "1235", "workstation", "0027", "/tmp", "/home/caller"]
        assert said[8].startswith("127.0.")

    def test_a_name_or_number_of_the_worker_does_not_shine_through(self, worker, job):
        script = "id -un; id -gn; getent passwd daemon"
        result = worker.run(job, ["sh", "-c", script], uid=1, gid=1, user="agent", group="agents")
        assert result.stdout == b"agent\nagents\n"

    def test_sq_10_it_is_pinned_to_its_slots(self, worker, job):
        cpus = len(os.sched_getaffinity(0))
        one = worker.run(job, ["nproc"], slots=1)
        assert one.stdout == b"1\n"
        both = worker.run(new_job(), ["nproc"], slots=min(2, cpus))
        assert both.stdout == b"%d\n" % min(2, cpus)

    def test_sq_09_it_inherits_no_descriptor_but_its_three(self, worker, job):
        result = worker.run(job, ["sh", "-c", "ls /proc/$$/fd; ls -l /proc/1/fd >/dev/null"])
        assert result.stdout.split() == [b"0", b"1", b"2"]

    def test_signals_are_as_a_shell_would_leave_them(self, worker, job):
        result = worker.run(job, ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])
        assert [int(line.split()[1], 16) for line in result.stdout.splitlines()] == [0, 0]

    def test_small_files_lie_at_their_paths_and_cannot_be_written(self, worker, job):
        spec = {"files": [{"path": "/home/caller/.config/tool.toml", "mode": 0o600, "size": 3}], "_body": b"x=1"}
        script = (
            "cat ~/.config/tool.toml; stat -c %a ~/.config/tool.toml; echo no > ~/.config/tool.toml || echo refused"
        )
        result = worker.run(job, ["sh", "-c", script], **spec)
        assert result.stdout == b"x=1600\nrefused\n"

    def test_temporary_directories_are_its_own_and_on_disk(self, worker, job):
        spec = {"tmpdirs": ["/tmp", "/var/tmp", "/home/caller/t"]}
        script = "for t in /tmp /var/tmp ~/t; do echo x > $t/f && stat -c '%a' $t; stat -fc %T $t; done"
        result = worker.run(job, ["sh", "-c", script], **spec)
        assert result.stdout.split().count(b"1777") == 3
        assert b"tmpfs" not in result.stdout
        assert not os.path.exists("/var/tmp/f")


class TestWhatAJobSees:
    def test_ex_09_nothing_of_the_worker_but_its_system(self, worker, job):
        keys = os.path.expanduser("~/.ssh")
        script = f"ls -d {worker.cache_dir} {keys} /root /home/* /srv /work 2>/dev/null; ls /; true"
        seen = worker.run(job, ["sh", "-c", script]).stdout.decode().split()
        allowed = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "usr", "proc", "dev", "run", "var"}
        assert set(seen) <= allowed | {"tmp", "home", "/home/caller"}

    def test_it_can_write_its_root_home_and_tmp_and_nothing_else(self, root):
        places = f"{PATH} /home/caller /tmp / /etc /usr /usr/local /opt /var /run /home /srv"
        script = f"for p in {places}; do touch $p/probe 2>/dev/null && echo $p; done; true"
        assert root.run(script).stdout.decode().split() == [PATH, "/home/caller", "/tmp"]

    def test_it_has_no_capability_that_reaches_beyond(self, worker, job):
        spec = {"uid": 0, "gid": 0, "user": "root", "group": "root"}
        script = "id -u; mount -t tmpfs none /mnt 2>/dev/null && echo mounted; cat /etc/shadow; true"
        assert worker.run(job, ["sh", "-c", script], **spec).stdout.strip() == b"0"

    def test_root_reads_and_writes_its_own_files_whatever_their_mode_as_it_would_at_home(self, root):
        spec = {"uid": 0, "gid": 0, "user": "root", "group": "root"}
        result = root.run("echo a > f; chmod 000 f; echo b >> f; cat f; chown 0:0 f", **spec)
        assert (result.stdout, result.rc["code"]) == (b"a\nb\n", 0)

    def test_it_sees_its_own_processes_only(self, worker):
        other = new_job()
        worker.start(other, ["sleep", "987"])
        seen = worker.run(new_job(), ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]).stdout
        assert b"987" not in seen
        worker.request("signal", {"job": other, "signal": "KILL"})

    def test_ex_10_without_network_there_is_a_loopback_and_nothing_else(self, worker, job):
        script = "cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat /sys/class/net 2>/dev/null; true"
        assert worker.run(job, ["sh", "-c", script]).stdout.split() == [b"lo"]
        source = (
            "import _socket as s\na = s.socket(); a.bind(('127.0.0.1', 0)); a.listen(1)\n"
            "b = s.socket(); b.connect(a.getsockname()); print('up')"
        )
        assert worker.run(new_job(), python(source)).stdout == b"up\n"

    def test_with_network_it_is_the_workers(self, worker, job):
        with open("/proc/net/dev", encoding="ascii") as file:
            wanted = sorted(line.split(":")[0].strip() for line in file if ":" in line)
        script = "tail -n +3 /proc/net/dev | cut -d: -f1; cat /etc/resolv.conf > /dev/null"
        result = worker.run(job, ["sh", "-c", script], network="host")
        assert sorted(result.stdout.decode().split()) == wanted
        assert result.rc["code"] == 0

    def test_two_jobs_share_neither_home_nor_tmp(self, worker):
        script = "ls -A ~ /tmp; echo x > ~/left; echo x > /tmp/left"
        for _ in range(2):
            assert b"left" not in worker.run(new_job(), ["sh", "-c", script]).stdout

    def test_pm_02_a_root_appears_at_any_path_of_the_caller(self, worker):
        odd = ["/home/caller/my project", "/srv/ü\udcff", "/root/x", "/opt/app/src", "/mnt/a/b/c/d", "/tmp/here"]
        for path in odd:
            root = WorkerRoot(worker)
            root.hold()
            root.sync(f("file", b"content"))
            spec = {"roots": [{"key": root.key, "path": path}], "cwd": path}
            assert root.run("cat file; pwd", **spec).stdout == b"content" + os.fsencode(path) + b"\n", path
            root.release()
        assert not os.path.exists("/opt/app")

    def test_a_bind_below_a_system_directory_gets_its_mount_point_without_touching_the_worker(
        self, worker, job, tmp_path
    ):
        (tmp_path / "tool").mkdir()
        (tmp_path / "tool" / "x").write_text("hi")
        binds = [{"source": str(tmp_path / "tool"), "path": "/usr/local/tool-of-the-caller/bin", "mode": "ro"}]
        script = (
            "cat /usr/local/tool-of-the-caller/bin/x; ls /usr/bin/env /usr/local >/dev/null; touch /usr/local/x || true"
        )
        result = worker.run(job, ["sh", "-c", script], binds=binds)
        assert (result.stdout, result.rc["code"]) == (b"hi", 0)
        assert not os.path.exists("/usr/local/tool-of-the-caller")

    def test_a_read_only_root_cannot_be_written(self, worker):
        root = WorkerRoot(worker)
        root.hold()
        root.sync(f("a", b"1"))
        spec = {"roots": [{"key": root.key, "path": PATH, "mode": "ro"}]}
        assert root.run("echo 2 > a || echo refused; cat a", **spec).stdout == b"refused\n1"

    def test_ex_12_directories_are_renamed_and_links_written_through_as_here(self, root):
        root.sync(f("a", b"1"))
        result = root.run("mkdir d; mv d e; ln a e/b; echo 2 > e/b; cat a; stat -c %h a")
        assert result.stdout == b"2\n2\n"

    @pytest.mark.parametrize(
        "source", ["~cache/jobs", "~cache/roots/{key}/tree", "~cache/../x", "/", "{cache}", "{cache}/slots"]
    )
    def test_no_bind_reaches_into_the_cache(self, root, source):
        source = source.format(key=root.key, cache=root.worker.cache_dir)
        with pytest.raises(WorkerRefused, match="bad-request"):
            root.run("true", binds=[{"source": source, "path": "/x", "mode": "ro"}])


class TestWhatIsLeftBehind:
    STUBBORN = (
        "import os, signal, sys, time\n"
        "for n in range(3):\n"
        "  if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "      for s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\n"
        "      time.sleep(1000)\n"
        "    os._exit(0)\n"
        "for s in (1, 2, 15): signal.signal(s, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(float(sys.argv[1]))\n"
    )

    def stubborn(self, mark, seconds="1000"):
        return ["/usr/bin/python3", "-c", self.STUBBORN, seconds, mark]

    def test_ex_02_the_end_of_the_main_process_ends_everything(self, worker, job):
        assert worker.run(job, self.stubborn(job + "-mark", "0.2")).ending == (0, None, "exited")
        assert processes_with(job + "-mark") == []

    def test_ex_02_a_cancel_ends_everything_after_the_grace(self, worker, job):
        worker.start(job, self.stubborn(job + "-mark"))
        worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        began = time.monotonic()
        worker.request("signal", {"job": job, "signal": "cancel"})
        result = worker.follow(job)
        assert result.ending == (None, signal.SIGKILL, "killed")
        assert result.state == "killed"
        assert 4.5 < time.monotonic() - began < 50
        assert processes_with(job + "-mark") == []
        assert worker.request("health").fields["slots_used"] == 0

    def test_ex_02_ex_04_the_time_limit_ends_everything_as_timeout(self, worker, job):
        worker.start(job, self.stubborn(job + "-mark"), timeout_s=1.0)
        result = worker.follow(job)
        assert (result.rc["reason"], result.state) == ("timeout", "timeout")
        assert processes_with(job + "-mark") == []

    def test_a_cancel_lets_a_polite_job_clean_up(self, worker, job):
        script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
        worker.start(job, ["sh", "-c", script])
        first = worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        worker.request("signal", {"job": job, "signal": "cancel"})
        result = worker.follow(job, first.fields["next"])
        assert (result.stdout, result.rc["code"], result.rc["reason"]) == (b"bye\n", 7, "killed")

    def test_a_signal_reaches_the_job_and_says_no_more_than_it_did(self, worker, job):
        script = "trap 'echo usr; exit 3' USR1; echo ready; while :; do sleep 0.05; done"
        worker.start(job, ["sh", "-c", script])
        first = worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        worker.request("signal", {"job": job, "signal": "USR1"})
        result = worker.follow(job, first.fields["next"])
        assert (result.stdout, result.ending) == (b"usr\n", (3, None, "exited"))

    def test_ex_03_serve_killed_in_the_middle_leaves_the_job_and_no_gap_in_its_log(self, make_worker, tmp_path, job):
        worker = make_worker()
        script = "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.15; done; exit 4"
        worker.start(job, ["sh", "-c", script])
        first = worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        worker.kill()
        again = make_worker()
        assert again.request("health").fields["slots_used"] == 1
        rest = again.follow(job, first.fields["next"])
        payloads = b"".join(data for _, _, data in [*_frames(first.body), *rest.frames])
        assert payloads == b"".join(b"line %d\n" % n for n in range(1, 9))
        assert rest.ending == (4, None, "exited")
        assert again.request("health").fields["slots_used"] == 0

    def test_ex_02_sq_01_a_supervisor_killed_takes_its_job_along_and_frees_its_slots(self, worker, job):
        worker.start(job, self.stubborn(job + "-mark"), slots=2)
        first = worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        os.kill(worker.request("status", {"job": job}).fields["pid"], signal.SIGKILL)
        result = worker.follow(job, first.fields["next"])
        assert result.ending == (None, None, "lost")
        assert result.state == "lost"
        wait_for(lambda: processes_with(job + "-mark") == [])
        assert worker.request("health").fields["slots_used"] == 0

    def test_a_supervisor_told_to_go_cancels_its_job(self, worker, job):
        worker.start(job, ["sleep", "1000"])
        wait_for(lambda: worker.request("status", {"job": job}).fields["pid"])
        os.kill(worker.request("status", {"job": job}).fields["pid"], signal.SIGTERM)
        assert worker.follow(job).rc["reason"] == "killed"

    def test_a_sandbox_killed_from_outside_is_told_so(self, worker, job):
        worker.start(job, self.stubborn(job + "-mark"))
        worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        supervisor = worker.request("status", {"job": job}).fields["pid"]
        with open(f"/proc/{supervisor}/task/{supervisor}/children", encoding="ascii") as file:
            os.kill(int(file.read().split()[0]), signal.SIGKILL)
        assert worker.follow(job).ending == (None, signal.SIGKILL, "killed")
        wait_for(lambda: processes_with(job + "-mark") == [])

    def test_a_job_cannot_end_its_own_init(self, worker, job):
        assert worker.run(job, ["sh", "-c", "kill -9 1; kill -TERM 1; kill -INT 1; sleep 0.1; exit 6"]).ending == (
            6,
            None,
            "exited",
        )

    def test_orphans_are_reaped(self, worker, job):
        source = (
            "import os, time\n"
            "for n in range(50):\n  if os.fork() == 0:\n    if os.fork() == 0: os._exit(0)\n    os._exit(0)\n  os.wait()\n"
            "time.sleep(0.5)\n"
            "print(sum(open(f'/proc/{p}/stat').read().split()[2] == 'Z' for p in os.listdir('/proc') if p.isdigit()))\n"
        )
        assert worker.run(job, ["/usr/bin/python3", "-c", source]).stdout == b"0\n"

    def test_the_environment_stays_neither_on_disk_nor_on_a_command_line(self, worker, job):
        secret = "s3cret-" + os.urandom(8).hex()
        worker.start(job, ["sh", "-c", "echo ready; sleep 600"], env={"PATH": "/usr/bin:/bin", "TOKEN": secret})
        worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        assert processes_with(secret) == []
        directory = os.path.join(worker.cache_dir, "jobs", job)
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    assert secret.encode() not in file.read(), name
        worker.request("signal", {"job": job, "signal": "KILL"})


def _frames(data):
    from rch.worker.protocol import log_frames

    return list(log_frames(data))


class TestStarting:
    def test_ex_07_the_same_job_started_twice_runs_once(self, root):
        root.release()
        root.hold(new_job())
        spec = minimal_spec(["sh", "-c", "echo ran >> log"], roots=[{"key": root.key, "path": PATH}], cwd=PATH)
        for _ in range(3):
            root.worker.request("start", {"job": root.job, "spec": spec})
        root.worker.follow(root.job)
        root.worker.request("start", {"job": root.job, "spec": spec})
        answer, _ = root.hold(root.job)
        assert answer["started"] is True
        with open(root.path("log"), encoding="ascii") as file:
            assert file.read() == "ran\n"

    def test_a_push_and_a_start_fit_into_one_request(self, root):
        spec = minimal_spec(["cat", "a"], roots=[{"key": root.key, "path": PATH}], cwd=PATH)
        spec["files"] = [{"path": "/home/caller/x", "mode": 0o644, "size": 2}]
        root.release()
        answer, found = root.hold(new_job(), items=[f("a", b"pushed")], spec=spec, spec_body=b"xy")
        assert (answer["started"], found["applied"]) == (True, True)
        assert root.worker.follow(root.job).stdout == b"pushed"

    def test_a_push_that_does_not_fit_starts_nothing(self, root):
        root.sync(f("a", b"1"))
        root.generation = "0123456789abcdef"
        spec = minimal_spec(["true"], roots=[{"key": root.key, "path": PATH}])
        root.release()
        answer, found = root.hold(new_job(), items=[f("a", b"2")], spec=spec)
        assert "started" not in answer
        assert found["applied"] is False
        assert not os.path.exists(os.path.join(root.worker.cache_dir, "jobs", root.job))

    def test_without_prepare_nothing_starts(self, worker, job):
        with pytest.raises(WorkerRefused, match="prepare comes first"):
            worker.request("start", {"job": job, "spec": minimal_spec(["true"])})

    def test_a_root_that_is_not_held_cannot_be_used(self, worker, root):
        other = new_job()
        worker.request("prepare", {"job": other, "slots": 1, "roots": []})
        spec = minimal_spec(["true"], roots=[{"key": root.key, "path": PATH}])
        with pytest.raises(WorkerRefused, match="not held"):
            worker.request("start", {"job": other, "spec": spec})

    def test_where_there_is_no_bubblewrap_nothing_runs_unsandboxed(self, make_worker, job, tmp_path):
        bin_dir = tmp_path / "bin"
        bin_dir.mkdir()
        broken = bin_dir / "bwrap"
        broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
        broken.chmod(0o755)
        worker = make_worker(env={"PATH": f"{bin_dir}:{os.environ['PATH']}"})
        hello = worker.request("hello", {"protocol": 1, "client": "t", "compression": []}).fields
        assert hello["sandbox"] == {"ok": False, "why": "bwrap: No permissions to create new namespace"}
        with pytest.raises(WorkerRefused, match="no-sandbox"):
            worker.run(job, ["true"])


class TestFetch:
    def fetch(self, worker, job, script, main="true", timeout_s=60, **more):
        spec = {"cargo_home": "/home/caller/.cargo", "fetch": [{"argv": ["sh", "-c", script], "timeout_s": timeout_s}]}
        return worker.run(job, ["sh", "-c", main], **spec, **more)

    def test_ex_10_the_fetch_step_writes_the_registry_and_the_job_cannot(self, worker, job):
        script = "echo crate > ~/.cargo/registry/x && echo fetched"
        main = "cat ~/.cargo/registry/x; echo bad > ~/.cargo/registry/x || echo refused; echo ok > ~/.cargo/config.toml && echo own"
        result = self.fetch(worker, job, script, main)
        assert result.stderr.startswith(b"fetched\n")
        assert result.stdout == b"crate\nrefused\nown\n"
        assert b"Read-only file system" in result.stderr
        with open(os.path.join(worker.cache_dir, "caches", "cargo", "registry", "x"), encoding="ascii") as file:
            assert file.read() == "crate\n"

    def test_ex_10_no_shared_cache_names_a_project_afterwards(self, root):
        root.sync(f("a", b"1"))
        spec = {"cargo_home": PATH + "/.cargo-home", "fetch": [{"argv": ["true"], "timeout_s": 60}]}
        assert root.run("ls .cargo-home", **spec).stdout.split() == [b"git", b"registry"]
        for parent, names, files in os.walk(os.path.join(root.worker.cache_dir, "caches")):
            assert not [n for n in names + files if "project" in n], parent
        delta = root.delta()
        assert ".cargo-home" not in delta.entries

    def test_the_fetch_step_may_write_the_projects_lock_file(self, root):
        root.sync(f("a", b"1"))
        spec = {
            "cargo_home": "/home/caller/.cargo",
            "fetch": [{"argv": ["sh", "-c", f"echo 2 > {PATH}/Cargo.lock"], "timeout_s": 60}],
        }
        assert root.run("cat Cargo.lock", **spec).stdout == b"2\n"
        assert "Cargo.lock" in root.delta().entries

    def test_a_failed_fetch_is_set_up_and_the_job_never_starts(self, worker, job):
        result = self.fetch(worker, job, "echo no index >&2; exit 101", "echo ran")
        assert result.ending == (None, None, "setup")
        assert result.rc["message"].startswith("fetch failed")
        assert "exit status 101" in result.rc["message"]
        assert (result.stdout, result.stderr) == (b"", b"no index\n")

    def test_a_fetch_has_its_own_time_limit(self, worker, job):
        result = self.fetch(worker, job, "sleep 600", "echo ran", timeout_s=0.5)
        assert result.ending == (None, None, "setup")
        assert "timeout" in result.rc["message"] or "time limit" in result.rc["message"]

    def test_stdin_waits_for_the_job_behind_the_fetch(self, worker, job):
        spec = {"cargo_home": "/home/caller/.cargo", "fetch": [{"argv": ["sleep", "0.5"], "timeout_s": 60}]}
        worker.start(job, ["cat"], fds={"0": "pipe"}, **spec)
        worker.request("stdin", {"job": job, "eof": True}, b"patient")
        assert worker.follow(job).stdout == b"patient"

    def test_a_cancel_ends_the_fetch(self, worker, job):
        spec = {
            "cargo_home": "/home/caller/.cargo",
            "fetch": [{"argv": ["sh", "-c", "echo go; sleep 600"], "timeout_s": 60}],
        }
        worker.start(job, ["echo", "ran"], **spec)
        worker.request("read", {"job": job, "offset": 0, "wait_s": 20})
        worker.request("signal", {"job": job, "signal": "cancel"})
        result = worker.follow(job)
        assert (result.state, result.stdout) == ("killed", b"")

    TRAP = "#!/bin/sh\necho evil > ~/.cargo/registry/x\n"

    @pytest.mark.parametrize(
        ("path", "program"),
        [(f"{PATH}/bin:/usr/bin:/bin", "fetcher"), ("bin:/usr/bin:/bin", "fetcher"), (":/usr/bin", "fetcher"),
         (f"/usr/../{PATH}/bin", "fetcher"), ("/proc/self/cwd/bin:/usr/bin", "fetcher"), ("/usr/bin", f"{PATH}/bin/fetcher")],
    )  # fmt: skip
    def test_ex_10_a_fetch_step_is_no_program_of_the_project(self, root, path, program):
        root.sync(f("bin/fetcher", self.TRAP.encode(), mode=0o755), f("fetcher", self.TRAP.encode(), mode=0o755))
        spec = {"cargo_home": "/home/caller/.cargo", "fetch": [{"argv": [program], "timeout_s": 60}]}
        result = root.run("true", env={"PATH": path, "HOME": "/home/caller"}, **spec)
        assert result.ending[2] == "setup"
        assert not os.path.exists(os.path.join(root.worker.cache_dir, "caches", "cargo", "registry", "x"))

    def test_ex_10_a_fetch_step_is_told_of_no_program_and_no_authority(self, worker, job):
        told = {
            "LD_LIBRARY_PATH": "/x", "GIT_SSH_COMMAND": "/x", "GOAUTH": "/x", "GOSUMDB": "x", "CARGO_HTTP_CAINFO": "/x",
            "CARGO_REGISTRY_CREDENTIAL_PROVIDER": "/x", "RUSTC": "/x", "RUSTC_WRAPPER": "/x", "SSL_CERT_FILE": "/x",
            "CARGO_REGISTRIES_OURS_INDEX": "kept", "GOPROXY": "kept", "HOME": "/home/caller", "PATH": "/usr/bin:/bin",
        }  # fmt: skip
        result = self.fetch(worker, job, "env", env=told)
        seen = dict(line.partition("=")[::2] for line in result.stderr.decode().splitlines())
        assert [name for name, value in seen.items() if value in ("/x", "x")] == []
        assert (seen["GOPROXY"], seen["CARGO_REGISTRIES_OURS_INDEX"], seen["RUSTC"]) == ("kept", "kept", "rustc")
