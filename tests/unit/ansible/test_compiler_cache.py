"""roles/compiler_cache/files/wrapper, the program that stands before sccache, with small programs in sccache's place."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

WRAPPER = Path(__file__).resolve().parents[3] / "roles" / "compiler_cache" / "files" / "wrapper"

SERVES = """\
#!/bin/sh
if [ "$1" = --start-server ]; then echo start >>"$0.log"; python3 -c '
import socket, sys
socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$SCCACHE_SERVER_UDS"; exit; fi
printf 'cached '
exec "$@"
"""
REFUSES = """\
#!/bin/sh
echo "$1" >>"$0.log"
echo 'sccache: error: Timed out waiting for server startup.' >&2
exit 2
"""


@pytest.fixture
def place(tmp_path):
    """The directory that role compiler_cache makes, and a compiler further on in PATH."""
    place = tmp_path / "place"
    (place / "bin").mkdir(parents=True)
    shutil.copy(WRAPPER, place / "wrapper")
    (place / "bin" / "cc").symlink_to("../wrapper")
    (tmp_path / "usual").mkdir()
    script(tmp_path / "usual" / "cc", '#!/bin/sh\necho "compiled $*"\n')
    return place


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)


def calls(place, *words, number=1, **env):
    """Run *words* *number* times at once, with the directory first in PATH -> (status, output) of each."""
    path = f"{place}/bin:{place.parent}/usual:{os.environ['PATH']}"
    given = {"PATH": path, "SCCACHE_SERVER_UDS": f"{place.parent}/socket", **env}
    started = [
        subprocess.Popen(words, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(number)
    ]
    return [(process.communicate(timeout=60)[0], process.returncode) for process in started]


class TestTheWrapper:
    def test_starts_the_server_once_and_gives_every_call_to_the_cache(self, place):
        script(place / "sccache", SERVES)
        assert calls(place, "cc", "-c", "a b.c", number=8) == [("cached compiled -c a b.c\n", 0)] * 8
        assert (place / "sccache.log").read_text() == "start\n"

    def test_is_called_by_cargo_with_the_compiler(self, place):
        script(place / "sccache", SERVES)
        compiler = f"{place.parent}/usual/cc"
        assert calls(place, f"{place}/wrapper", compiler, "-vV") == [("cached compiled -vV\n", 0)]

    def test_steps_aside_where_the_server_cannot_start_and_asks_once(self, place):
        script(place / "sccache", REFUSES)
        assert calls(place, "cc", "-c", "a.c", number=8) == [("compiled -c a.c\n", 0)] * 8
        assert calls(place, f"{place}/wrapper", "cc", "-vV") == [("compiled -vV\n", 0)]
        assert (place / "sccache.log").read_text() == "--start-server\n"

    def test_steps_aside_where_there_is_no_sccache(self, place):
        (place / "sccache").symlink_to("/usr/libexec/nowhere/sccache")
        assert calls(place, "cc", "-c", "a.c") == [("compiled -c a.c\n", 0)]

    def test_leaves_an_sccache_that_listens_on_a_port_to_itself(self, place):
        script(place / "sccache", '#!/bin/sh\nprintf "cached "\nexec "$@"\n')
        assert calls(place, "cc", "-c", "a.c", SCCACHE_SERVER_UDS="") == [("cached compiled -c a.c\n", 0)]

    def test_says_that_there_is_no_such_compiler_as_a_shell_would(self, place):
        script(place / "sccache", SERVES)
        (place / "bin" / "clang++").symlink_to("../wrapper")
        assert calls(place, "clang++", PATH=f"{place}/bin:/bin:/nowhere:") == [("clang++: not found\n", 127)]
