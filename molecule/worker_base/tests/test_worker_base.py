"""What a machine is after the role."""


def test_the_account_has_a_plain_shell_and_no_password(host):
    account = host.user("rch")
    assert (account.shell, account.home) == ("/bin/sh", "/home/rch")
    assert account.password == "*"


def test_the_cache_directory_is_private_and_on_a_disk(host):
    directory = host.file("/home/rch/.rch")
    assert (directory.user, directory.mode) == ("rch", 0o700)
