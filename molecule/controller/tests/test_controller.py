"""What was missing is installed, and nothing that was there already, whoever brought it."""

import pytest


@pytest.mark.parametrize(("package", "command"), [("zstd", "zstd --version"), ("tcl", "tclsh /dev/null")])
def test_what_was_missing_is_installed_and_runs(host, package, command):
    assert host.package(package).is_installed
    host.check_output(command)


def test_a_program_that_is_there_counts_whoever_brought_it(host):
    assert not host.package("python3-of-mine").is_installed
    assert host.check_output("command -v of-mine") == "/usr/local/bin/of-mine"


def test_with_nothing_missing_no_index_is_read(host):
    """The play ran three times, and the index is older than what the first one installed."""
    read = int(host.check_output("stat -c %Y /var/lib/apt/lists/partial"))
    assert read <= int(host.check_output("stat -c %Y /var/lib/dpkg/info/zstd.list"))
