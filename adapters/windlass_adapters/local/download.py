"""One file from an ``https://`` address into the artifact store, inside the ``prepare`` process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import httpx

from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import TerminalError
from windlass_adapters.local.models import DownloadError, check_address
from windlass_schemas import Artifact, Reason

LIMIT = 8 << 30
"""Bytes; the ONNX format itself ends at 2 GiB a file."""
TIMEOUT = 30.0
"""Seconds for a connection, and for each silence."""
REDIRECTS = 5


def download(url: str, digest: str | None, store: ArtifactStore) -> Artifact:
    """Get a file, unless the one of that digest is here already. Raises DownloadError, OSError."""
    name = PurePosixPath(urlsplit(url).path).name or "model"
    if digest is not None and store.has(digest):
        return Artifact(digest=digest, size=store.path(digest).stat().st_size, name=name)
    try:
        with httpx.Client(timeout=TIMEOUT, follow_redirects=False) as client:
            return _get(client, url, name, store)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DownloadError(
            f"{_place(url)} does not answer: {str(error) or type(error).__name__}",
            Reason.BACKEND_UNAVAILABLE,
            passes=True,
        ) from None


def _get(client: httpx.Client, url: str, name: str, store: ArtifactStore) -> Artifact:
    for _ in range(REDIRECTS + 1):
        with client.stream("GET", url, headers={"accept-encoding": "identity"}) as response:
            if response.next_request is not None:
                url = _checked(str(response.next_request.url))
                continue
            if response.status_code != httpx.codes.OK:
                raise DownloadError(
                    f"{_place(url)} answered {response.status_code} {response.reason_phrase};"
                    " mend spec.source.url or the server",
                    Reason.BACKEND_UNAVAILABLE
                    if response.is_server_error
                    else Reason.BACKEND_REFUSED,
                    passes=response.is_server_error,
                )
            try:
                return store.put_stream(_Body(response.iter_bytes(1 << 20)), name, LIMIT)
            except ValueError as error:
                raise DownloadError(str(error), Reason.INVALID_ARTIFACT, passes=False) from None
    raise DownloadError(
        f"{_place(url)}: more than {REDIRECTS} redirects; give the final address",
        Reason.BACKEND_REFUSED,
        passes=False,
    )


def _checked(url: str) -> str:
    try:
        check_address(url, "a redirect of spec.source.url")
    except TerminalError as error:
        raise DownloadError(str(error), Reason.BACKEND_REFUSED, passes=False) from None
    return url


def _place(url: str) -> str:
    """An address without user, password and query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"


class _Body:
    """The pieces of a response as something to read from; a piece may be larger than asked."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, _size: int, /) -> bytes:
        return next(self._pieces, b"")
