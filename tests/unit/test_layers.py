"""Who may import whom: read from top to bottom the table is one command on its way out and back."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "rch"

# errors, paths and the version are for everyone; client_paths holds the rule where state and run directory lie.
EVERYONE = {"errors", "paths", "__version__", "client_paths"}

# part -> the other parts of rch it may import. A new edge is a decision: say why in the commit that adds it here.
EDGES: dict[str, set[str]] = {
    "errors": set(),
    "paths": set(),
    "order": set(),
    "client": set(),
    "intercept": {"toolchains"},
    "toolchains": {"intercept"},  # Kind and the other shared types of decision.py
    "agents": {"intercept", "client", "toolchains"},  # toolchains: UNKNOWN, a part of a word nobody knows
    "shims": {"toolchains"},  # which toolchain judges which program
    "project": {"intercept", "worker"},  # worker: protocol.Entry, the one description of a path
    "fleet": set(),
    "schedule": {"project", "fleet", "intercept"},
    "transfer": {"project", "execute", "worker"},
    "execute": {"fleet", "project", "order", "intercept", "worker"},
    "offload": {"intercept", "order", "project", "schedule", "transfer", "execute", "daemon"},
    "config": {"intercept", "worker", "client"},  # client: the words and names of the switches, written once
    "daemon": {
        "agents",  # POST /hook/{agent}
        "client", "config", "execute", "fleet", "intercept", "offload", "order", "project", "schedule",
        "toolchains", "transfer", "worker",
    },
    "cli": {
        "client", "config", "execute", "fleet", "intercept", "order", "project", "schedule", "worker", "agents", "shims",
        "toolchains",  # rch shim install: which are on by default
        "daemon",  # rch doctor probes workers by the same code where rchd does not run
    },
    "worker": set(),
    "testing": {"worker", "execute", "fleet", "project", "order"},
    "__main__": {"client", "cli", "agents"},
}  # fmt: skip

STDLIB_ONLY = ("client", "worker", "errors", "paths")

# Modules that reach out of the process. Deciding parts may name paths but not look at them.
IO = {"subprocess", "socket", "shutil", "pathlib", "tempfile", "glob", "fcntl", "select", "asyncio", "http", "urllib"}


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "client" if first.startswith("client") else first


def imports(path: Path) -> Iterator[str]:
    package = ".".join(("rch", *path.relative_to(PACKAGE).parts[:-1]))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(
                    [*package.split(".")[: len(package.split(".")) - node.level + 1], *([base] if base else [])]
                )
            yield from (f"rch.{alias.name}" for alias in node.names) if base == "rch" else (base,)


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
class TestAModule:
    def test_imports_only_along_the_story(self, path):
        part = part_of(path)
        assert part in EDGES, f"rch/{part} has no row in the table"
        for name in imports(path):
            if name.startswith("rch."):
                other = name.split(".")[1]
                if name.startswith("rch.client_paths") or other in EVERYONE:
                    continue
                other = "client" if other.startswith("client") else other
                assert other == part or other in EDGES[part], f"{path} imports {name}"

    def test_of_the_hot_path_or_the_worker_imports_the_standard_library_alone(self, path):
        if part_of(path) not in STDLIB_ONLY:
            return
        for name in imports(path):
            top = name.split(".")[0]
            assert top == "rch" or top in sys.stdlib_module_names, f"{path} imports {name}"

    def test_leaves_the_insides_of_other_folders_alone(self, path):
        if part_of(path) == "testing":
            return  # test tools look where tests look
        for name in imports(path):
            words = name.split(".")
            if words[0] == "rch" and any(word.startswith("_") and not word.startswith("__") for word in words):
                assert words[1] == path.relative_to(PACKAGE).parts[0], f"{path} imports {name}"


@pytest.mark.parametrize("part", ["intercept", "toolchains", "schedule"])
def test_a_part_that_decides_reaches_out_to_nothing(part):
    for path in (PACKAGE / part).rglob("*.py"):
        found = {name.split(".")[0] for name in imports(path)} & IO
        assert not found, f"{path} imports {found}"


@pytest.mark.parametrize("module", ["rch.client", "rch.shims.judge", "rch.offload", "rch.daemon.rchd"])
def test_d_17_nothing_on_the_path_of_a_command_renders_templates_or_starts_ansible(module):
    code = (
        f"import sys, {module}; print(sorted({{m.partition('.')[0] for m in sys.modules}} & {{'jinja2', 'ansible'}}))"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_the_package_root_brings_nothing_along():
    assert not list(imports(PACKAGE / "__init__.py"))


def test_dev_only_packages_are_not_imported_by_the_product():
    import tomllib

    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    names = {"pyyaml": "yaml", "ansible-core": "ansible", "ansible-runner": "ansible_runner", "ruamel.yaml": "ruamel"}
    declared = {r.split(">")[0].split("<")[0].split("=")[0].strip() for r in project["dependencies"]}
    allowed = {names.get(name, name.replace("-", "_")) for name in declared} | {"rch", "paramiko"}
    for path in modules():
        if part_of(path) == "testing":
            continue
        for name in imports(path):
            top = name.split(".")[0]
            assert top in allowed or top in sys.stdlib_module_names, f"{path} imports {top}, pyproject does not name it"
