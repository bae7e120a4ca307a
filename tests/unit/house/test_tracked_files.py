"""What may not be in any tracked file."""

import os
import re
import subprocess
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CHECKOUT = Path(__file__).parents[3]

# Spelled otherwise than meant: this file is tracked too.
MACHINE_PATHS = tuple(path.replace("|", "/") for path in ("|work|", "|farm|", "|root|.pyenv", "|opt|wheels"))

# Hosts that everybody's configuration may name.
PUBLIC = {
    "pypi.org", "files.pythonhosted.org", "crates.io", "index.crates.io", "static.crates.io", "github.com",
    "deb.debian.org", "security.debian.org", "snapshot.debian.org", "registry.npmjs.org", "proxy.golang.org",
    "static.rust-lang.org", "localhost", "127.0.0.1", "",
}  # fmt: skip


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, check=True, timeout=60)
    return [CHECKOUT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]


def text_of(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace") if path.is_file() else ""


def registry_hosts() -> set[str]:
    """Hosts of package registries that this machine is configured for and the public does not know."""
    texts = [
        value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "CARGO_", "NPM_", "GOPROXY"))
    ]
    home = Path.home()
    files = (".config/pip/pip.conf", ".pip/pip.conf", ".npmrc", ".cargo/config.toml", ".cargo/config")
    texts += [text_of(path) for path in (Path("/etc/pip.conf"), *(home / name for name in files))]
    hosts = {urlsplit(url).hostname or "" for text in texts for url in re.findall(r"https?://[^\s\"',|]+", text)}
    return hosts - PUBLIC


class TestATrackedFile:
    def test_names_no_path_of_one_machine(self):
        found = [
            f"{path.relative_to(CHECKOUT)}: {words}"
            for path in tracked()
            for words in MACHINE_PATHS
            if words in text_of(path)
        ]
        assert not found

    def test_names_no_registry_that_only_this_machine_knows(self):
        hosts = registry_hosts()
        found = [
            f"{path.relative_to(CHECKOUT)}: {host}" for path in tracked() for host in hosts if host in text_of(path)
        ]
        assert not found

    def test_is_no_build_product_and_no_large_file(self):
        for path in tracked():
            if path.is_file():
                assert path.stat().st_size < 1_000_000, f"{path} is larger than a source"
                assert not {"__pycache__", ".venv", ".lab", "target", "node_modules"} & set(path.parts), path

    def test_holds_no_private_key(self):
        mark = "PRIVATE " + "KEY-----"
        assert not [path for path in tracked() if mark in text_of(path)]


class TestTheConstraints:
    LINES = (CHECKOUT / "constraints.txt").read_text().splitlines()

    def test_are_names_with_exact_versions_and_nothing_else(self):
        for line in self.LINES:
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line

    def test_are_sorted_and_name_nothing_twice(self):
        names = [line.split("==")[0].lower().replace("_", "-") for line in self.LINES]
        assert len(names) == len(set(names))
        assert names == sorted(names)


class TestThePinsOfPyproject:
    TEXT = (CHECKOUT / "pyproject.toml").read_text()

    def test_have_their_reason_on_the_line_where_they_bound_above(self):
        for line in self.TEXT.splitlines():
            if re.match(r'\s*"[A-Za-z0-9._-]+[><=~]=?[^"]*<[^"]*",', line):
                assert "#" in line, f"why this bound? {line}"

    def test_of_the_product_all_say_what_the_package_is_for(self):
        block = self.TEXT.split("\ndependencies = [", 1)[1].split("\n]", 1)[0]
        # A group of packages may share the reason of its first line.
        names = [line for line in block.splitlines() if line.strip()]
        unexplained = [line for line in names if "#" not in line]
        assert [line.split(">=")[0].strip(' "') for line in unexplained] == ["tree-sitter-bash"]

    def test_name_the_floor_that_the_readme_promises(self):
        assert tomllib.loads(self.TEXT)["project"]["requires-python"] == ">=3.11"

    @pytest.mark.parametrize("section", ["ignore", "per-file-ignores"])
    def test_ruff_ignores_are_no_secret_list(self, section):
        assert section in self.TEXT
