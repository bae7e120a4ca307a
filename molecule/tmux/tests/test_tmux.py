"""A session that an ordinary account starts, looks at and ends."""


def test_tmux_is_there(host):
    assert host.run("tmux -V").stdout.startswith("tmux 3")


def test_an_ordinary_account_looks_at_a_session(host):
    host.check_output(
        "runuser -u daemon -- env HOME=/nonexistent tmux -u -L look new-session -d -s job 'echo from the job; sleep 60'"
    )
    try:
        shown = host.check_output("sleep 1; runuser -u daemon -- tmux -u -L look capture-pane -p -t job")
        assert shown.splitlines()[0] == "from the job"
    finally:
        host.run("runuser -u daemon -- tmux -u -L look kill-server")


def test_the_roles_own_session_is_gone(host):
    assert host.run("pgrep -x tmux").rc == 1


def test_nothing_is_configured_for_everybody(host):
    assert not host.file("/etc/tmux.conf").exists
