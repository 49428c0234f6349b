"""The certificate of TLS: two files in PEM, which somebody renews while they are in use.

Outside the eight hops. The files are looked at twice a second. A new pair holds from the next
connection on; a pair that does not go together, as in the middle of a renewal, changes nothing.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import structlog

from windlass.serving.process import EXIT_FAILED, StartError

log = structlog.get_logger()

Seen = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Certificate:
    """Where the two files are."""

    chain: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For sockets. Raises StartError."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.chain, self.key)
        except (OSError, ssl.SSLError) as error:
            text = f"cannot use {self.chain} with {self.key}: {error.strerror or error}"
            raise StartError(f"{text}; mend params.tls", EXIT_FAILED, "BackendRefused") from None
        return context

    def seen(self) -> Seen:
        """What shows that a file is another one; nothing, where one is not there."""
        try:
            found = [path.stat() for path in (self.chain, self.key)]
        except OSError:
            return ()
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)


class Renewed:
    """A certificate in use."""

    def __init__(self, certificate: Certificate) -> None:
        """Raises StartError."""
        self.certificate = certificate
        self._seen = certificate.seen()  # first: what changes while it is read is seen later
        self.context = certificate.context()
        self.pair = self._read()
        """Key and chain as they are in force."""

    def refresh(self) -> None:
        """Take over files that have changed."""
        seen = self.certificate.seen()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.certificate.context()  # in the one in use, half a pair would replace a whole one
            self.context.load_cert_chain(self.certificate.chain, self.certificate.key)
            self.pair = self._read()
            log.info("certificate renewed", chain=str(self.certificate.chain))
        except (OSError, ssl.SSLError, StartError) as error:
            log.warning("certificate not renewed; the old one serves on", message=str(error))

    def _read(self) -> tuple[bytes, bytes]:
        return self.certificate.key.read_bytes(), self.certificate.chain.read_bytes()
