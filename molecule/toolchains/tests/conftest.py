"""What both workers are looked at with: their facts, and a sandbox like a job's."""

import json
import shlex

import pytest

FACT = "/etc/ansible/facts.d/rch.fact"


@pytest.fixture
def facts(host):
    return json.loads(host.file(FACT).content_string)


@pytest.fixture
def sandbox(host, facts):
    """A function: tool, script -> what the script printed, run by the account as a job would be.

    cached: the compiler cache is there for the script, by the variables that rch would give a job. network: the worker's.
    """

    def run(tool, script, *, cached=False, network=False):
        row = facts["toolchains"][tool][0]
        mounts = [word for place in ("/usr", "/etc", "/bin", "/lib", "/lib64") for word in ("--ro-bind", place, place)]
        mounts += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/root"]
        table = {**row["binds"]}
        # A mount point in /usr/local needs a writable place to be made in; rch rebuilds the directory instead.
        if any(place.startswith("/usr/local/") for place in table):
            mounts += ["--tmpfs", "/usr/local"]
        for place in sorted(table):
            mounts += ["--ro-bind", table[place], place]
        first, variables = "", {}
        if cached:
            about = facts["compiler_cache"]
            mounts += ["--ro-bind", about["place"], about["seen_at"]]
            mounts += [word for path in about["directories"] for word in ("--bind", path, path)]
            first = f"{about['seen_at']}/bin:"
            variables = {
                "CCACHE_CONFIGPATH": f"{about['seen_at']}/ccache.conf",
                "RUSTC_WRAPPER": f"{about['seen_at']}/wrapper",
                "SCCACHE_CONF": f"{about['seen_at']}/sccache.toml",
                "SCCACHE_SERVER_UDS": "/tmp/rch-sccache",
                "AWS_SHARED_CREDENTIALS_FILE": f"{about['seen_at']}/credentials",
            }
        more = row.get("path", "") or ":".join(place for place in table if place.endswith("/bin"))
        variables["PATH"] = f"{first}/usr/local/bin:/usr/bin:/bin:{more}".rstrip(":")
        variables["HOME"] = "/tmp/home"
        words = [
            "bwrap",
            "--die-with-parent",
            "--unshare-user",
            "--unshare-pid",
            *(() if network else ("--unshare-net",)),
            *mounts,
        ]
        words += [word for name, value in variables.items() for word in ("--setenv", name, value)]
        return host.check_output("runuser -u rch -- " + shlex.join([*words, "sh", "-ec", script]))

    return run
