"""The running daemon, as a command sees it: one request, one value, or a Failure that helps."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from windlass.api.views import LoggedEvent, ObjectView, Problem
from windlass.cli.failure import ExitCode, Failure
from windlass.cli.terminal import note
from windlass_schemas import CloudEvent, Key

T = TypeVar("T", bound=BaseModel)

SILENCE = 45.0
"""Seconds without a sign after which a stream counts as dead; the daemon gives one every 15."""
PATIENCE = 30.0
"""Seconds that a follower waits for a daemon that went away to come back."""


class NotFoundError(Failure):
    """The daemon knows no such object."""


def no_daemon(server: str) -> Failure:
    """The failure when nothing answers."""
    return Failure(
        f"no daemon answers at {server}",
        "start one: windlass up PATH (or say where it is: --server or WINDLASS_SERVER)",
        ExitCode.NO_DAEMON,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


class Client:
    """Speaks to one daemon."""

    def __init__(self, server: str) -> None:
        self.server = (server if "://" in server else f"http://{server}").rstrip("/")
        try:
            self._http = httpx.Client(
                base_url=self.server,
                timeout=httpx.Timeout(30.0, connect=5.0),
                trust_env=False,  # a proxy cannot reach a loopback address
                headers={"X-Windlass-User": _user().encode("ascii", "replace").decode()},
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise Failure(
                f"{server!r} is no address of a daemon ({error})", "write http://127.0.0.1:8700"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the network says into what a person can use."""
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise no_daemon(self.server) from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise Failure(
                f"{self.server!r} is no address of a daemon", "write http://127.0.0.1:8700"
            ) from error
        except httpx.TimeoutException as error:
            raise Failure(
                f"the daemon at {self.server} did not answer in time",
                "see its log; then try again",
            ) from error
        except httpx.HTTPError as error:
            raise Failure(
                f"the daemon at {self.server} broke off ({type(error).__name__})",
                "see whether it still runs: windlass doctor",
                ExitCode.NO_DAEMON,
            ) from error

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError as error:
            raise Failure(
                f"{self.server} answered {response.status_code} in words that are not Windlass's",
                "is another program listening there? see --server and WINDLASS_SERVER",
            ) from error
        failure = NotFoundError if response.status_code == 404 else Failure
        raise failure(problem.error, problem.hint)

    def call(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        params: Mapping[str, str | int] | None = None,
        body: BaseModel | None = None,
        patience: float = 30.0,
    ) -> T:
        """One request, answered in ``patience`` seconds. Raises Failure (NotFoundError for 404)."""
        with self._explained():
            response = self._http.request(
                method,
                path,
                params=params,
                content=body.model_dump_json() if body else None,
                headers={"content-type": "application/json"} if body else None,
                timeout=httpx.Timeout(patience, connect=5.0),
            )
        try:
            return answer.model_validate_json(self._checked(response).content)
        except ValidationError as error:
            raise Failure(
                f"{self.server} answered something that this windlass does not understand",
                "compare versions: windlass version, windlass doctor",
            ) from error

    def get(self, path: str, answer: type[T], **params: str | int) -> T:
        """Read. Raises Failure."""
        return self.call("GET", path, answer, params=params)

    def object(self, key: Key) -> ObjectView:
        """One object. Raises NotFoundError, Failure."""
        return self.get(path_of(key), ObjectView)

    def infer(self, name: str, data: bytes) -> httpx.Response:
        """Send an inference request through the daemon's gateway. Raises Failure."""
        with self._explained():
            return self._http.post(
                f"/v2/models/{name}/infer",
                content=data,
                headers={"content-type": "application/json"},
                timeout=httpx.Timeout(300.0, connect=5.0),
            )

    def raise_for(self, response: httpx.Response) -> None:
        """Raise the Failure that a refused response stands for."""
        self._checked(response)

    def stream(self, path: str, **params: str | int) -> Iterator[bytes]:
        """The bytes of a response as they come; ends where the daemon ends it. Raises Failure."""
        timeout = httpx.Timeout(None, connect=5.0)
        with (
            self._explained(),
            self._http.stream("GET", path, params=params, timeout=timeout) as response,
        ):
            if not response.is_success:
                response.read()
            self._checked(response)
            yield from response.iter_bytes()

    def follow(self, *, tail: int, key: Key | None = None) -> Iterator[LoggedEvent]:
        """Events from ``tail`` positions before the end, then each new one, for ever.

        Outlives a restart of the daemon: no event is lost or given twice.
        """
        params: dict[str, str | int] = {"tail": tail} | ({"key": str(key)} if key else {})
        with self._explained():
            self._checked(self._http.get("/healthz"))
        last: int | None = None
        lost_at: float | None = None
        while True:
            try:
                for position, event in self._events(params, last):
                    last, lost_at = position, None
                    if event is not None:
                        yield LoggedEvent(position=position, event=event)
                raise httpx.RemoteProtocolError("the daemon stopped")
            except httpx.HTTPError as error:
                now = time.monotonic()
                if lost_at is None:
                    lost_at = now
                    note(f"the daemon at {self.server} went away; waiting for it to come back")
                if now - lost_at > PATIENCE:
                    raise no_daemon(self.server) from error
                time.sleep(0.5)

    def _events(
        self, params: Mapping[str, str | int], last: int | None
    ) -> Iterator[tuple[int, CloudEvent | None]]:
        """One connection's positions and events; the first position comes without an event."""
        headers = {} if last is None else {"last-event-id": str(last)}
        timeout = httpx.Timeout(SILENCE, connect=5.0)
        path = "/api/v1/events/stream"
        with self._http.stream(
            "GET", path, params=params, headers=headers, timeout=timeout
        ) as response:
            if not response.is_success:
                response.read()
            self._checked(response)
            position = last or 0
            for line in response.iter_lines():
                field, _, value = line.partition(": ")
                if field == "id":
                    position = int(value)
                elif field == "data":
                    yield position, CloudEvent.model_validate_json(value)
                elif not field:  # a comment: the stream starts, or lives
                    yield position, None


def path_of(key: Key) -> str:
    """Where the API has an object."""
    return f"/api/v1/objects/{key.kind}/{key.namespace}/{key.name}"
