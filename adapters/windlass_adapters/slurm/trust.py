"""Whom one believes at the other end of a connection, and who one says one is: hops 5 and 7.

Nobody is believed by default, and no setting of ssh changes that; only the Target's own words do.
"""

from __future__ import annotations

from pathlib import Path

import asyncssh
import structlog

from windlass_adapters.base import WaitingError
from windlass_adapters.secrets import resolve_secret
from windlass_adapters.slurm.params import SlurmParams
from windlass_schemas import Reason

KNOWN_HOSTS = "~/.ssh/known_hosts"
SITE_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts",)

_log = structlog.get_logger("windlass.slurm")


def config_of(params: SlurmParams) -> list[str] | None:
    """The ssh configuration that is honoured; None for none."""
    if params.ssh_config is None:
        return None
    path = Path(params.ssh_config).expanduser()
    return [str(path)] if path.is_file() else None


def keys_of(params: SlurmParams) -> list[asyncssh.SSHKey | tuple[asyncssh.SSHKey, str]]:
    """The key of the Target, read anew for each connection. Raises TerminalError."""
    if params.key is None:
        return []
    passphrase = resolve_secret(params.passphrase) if params.passphrase else None
    key = asyncssh.import_private_key(resolve_secret(params.key) + "\n", passphrase)
    if params.certificate is None:
        return [key]
    return [(key, str(Path(params.certificate).expanduser()))]


def versions_of(params: SlurmParams) -> tuple[int, ...]:
    """Of the files that say who we are and whom we believe: somebody may have mended them."""
    own = [params.key, params.passphrase, params.certificate]
    files = [Path((each or "").removeprefix("file:")) for each in own]
    found = []
    for path in [*_known_files(params, params.host), *files]:
        try:
            found.append(path.expanduser().stat().st_mtime_ns)
        except (OSError, ValueError):
            found.append(0)
    return tuple(found)


def _known_files(params: SlurmParams, host: str) -> list[Path]:
    """Files with the keys of hosts, as ssh would read them. No setting of ssh means "anybody"."""
    if params.known_hosts is not None:
        return [Path(params.known_hosts).expanduser()]
    told = asyncssh.SSHClientConnectionOptions(
        config=config_of(params), host=host, client_keys=None, agent_path=None
    ).known_hosts
    own = [str(name) for name in told] if isinstance(told, list) else []
    return [Path(name).expanduser() for name in (*(own or [KNOWN_HOSTS]), *SITE_KNOWN_HOSTS)]


def trusted(params: SlurmParams, host: str, last: bool) -> asyncssh.SSHKnownHosts | None:
    """Whose keys are believed. None, which believes everybody, only where the Target says so."""
    if params.insecure_ignore_host_key:
        _log.warning("the host key is not verified; remove insecureIgnoreHostKey", host=host)
        return None
    if params.host_key is not None and last:
        return asyncssh.import_known_hosts(f"* {params.host_key}\n")
    files = _known_files(params, host)
    there = [str(path) for path in files if path.is_file()]
    if not there:
        raise WaitingError(
            f"{files[0]} is not there, so that {host} cannot be verified; write its key there or"
            " into params.hostKey",
            reason=Reason.UNAUTHORIZED,
        )
    found: asyncssh.SSHKnownHosts = asyncssh.read_known_hosts(there)
    return found
