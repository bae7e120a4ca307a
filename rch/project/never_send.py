"""Names that stay behind unless they are tracked or named in ``transfer.force_include`` (lessons SP-01, SE-02).

The one list. A name is compared without regard to case; directories hold back everything below them.
"""

from __future__ import annotations

import re

DIRECTORIES = frozenset(
    (".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker", ".gcloud", ".password-store", ".vault")
)

NAMES = frozenset(
    (
        ".env", ".envrc", ".netrc", "_netrc", ".git-credentials", ".pgpass", ".my.cnf", ".htpasswd", ".pypirc",
        ".npmrc", ".yarnrc.yml", ".vault-token", ".dockercfg", ".terraformrc", ".boto", ".s3cfg", ".rch-token",
        "id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk",
        "credentials", "credentials.json", "credentials.toml", "client_secret.json",
        "application_default_credentials.json",
        "secrets.json", "secrets.toml", "secrets.yaml", "secrets.yml", "master.key",
    )
)  # fmt: skip

SUFFIXES = (
    ".pem",
    ".key",
    ".p12",
    ".pfx",
    ".jks",
    ".keystore",
    ".kdbx",
    ".ppk",
    ".gpg",
    ".tfvars",
    ".tfstate",
)

_ENV_EXAMPLES = re.compile(r"\.env\.(?:example|sample|template|dist|defaults?)")
"""What projects commit on purpose; an untracked one is a template too."""


def is_never_sent(name: str) -> bool:
    """True if an untracked file called *name* (last component) must not leave this machine unasked."""
    low = name.lower()
    if low in NAMES or low.endswith(SUFFIXES):
        return True
    return low.startswith(".env.") and _ENV_EXAMPLES.fullmatch(low) is None


def is_never_entered(name: str) -> bool:
    """True if an untracked directory called *name* holds secrets by convention."""
    return name.lower() in DIRECTORIES
