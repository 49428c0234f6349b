"""Commands that ask the daemon for something: sync, suspend, resume, delete, approve, infer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from windlass.api.views import Accepted, ApproveBody, SuspendBody, TransferBody
from windlass.cli.client import Client, path_of
from windlass.cli.failure import Failure
from windlass.cli.naming import key_of
from windlass.cli.terminal import raw, say
from windlass.cli.waiting import wait_for_sync


def sync(client: Client, name: str, wait: bool, timeout: str) -> None:
    """``windlass sync``."""
    key = key_of(name)
    accepted = client.call("POST", f"{path_of(key)}/sync", Accepted)
    if wait and accepted.token:
        wait_for_sync(client, key, accepted.token, timeout)
    else:
        say(f"{key.short} is looked at now")


def suspend(client: Client, name: str, reason: str) -> None:
    """``windlass suspend``."""
    key = key_of(name)
    body = SuspendBody(reason=reason)
    client.call("POST", f"{path_of(key)}/suspend", Accepted, body=body)
    say(f"{key.short} is suspended: {reason}")


def resume(client: Client, name: str) -> None:
    """``windlass resume``."""
    key = key_of(name)
    client.call("POST", f"{path_of(key)}/resume", Accepted)
    say(f"{key.short} is acted on again")


def delete(client: Client, name: str) -> None:
    """``windlass delete``."""
    key = key_of(name)
    client.call("DELETE", path_of(key), Accepted)
    say(f"{key.short} is being deleted")


def transfer(client: Client, name: str, to: str) -> None:
    """``windlass transfer``."""
    key = key_of(name)
    client.call("POST", f"{path_of(key)}/transfer", Accepted, body=TransferBody(to=to))
    say(f"{key.short} belongs to {to} now")


def approve(client: Client, revision: str) -> None:
    """``windlass approve``."""
    body = ApproveBody(revision=revision)
    accepted = client.call("POST", "/api/v1/approve", Accepted, body=body)
    for key in accepted.keys:
        say(f"{key} is being deleted")


def infer(client: Client, name: str, data: str) -> None:
    """``windlass infer``."""
    if "/" in name:
        key = key_of(name)
        if key.kind != "Deployment":
            raise Failure(f"{key.short} answers no requests", "name a Deployment")
        name = f"{key.namespace}.{key.name}"
    response = client.infer(name, _data(data))
    if response.is_success:
        raw(response.text)
        return
    try:
        said = response.json()
    except ValueError:
        said = None
    if isinstance(said, dict) and "error" in said and "hint" not in said:
        raise Failure(  # the serving process's own words
            str(said["error"]), f"inputs and outputs: windlass describe Deployment/{name}"
        )
    client.raise_for(response)


def _data(data: str) -> bytes:
    """The request body: JSON as given, ``@file``, or ``-`` for stdin. Raises Failure."""
    if data == "-":
        content = sys.stdin.buffer.read()
    elif data.startswith("@"):
        try:
            content = Path(data[1:]).read_bytes()
        except OSError as error:
            raise Failure(
                f"cannot read {data[1:]} ({error.strerror})", "write -d @FILE, -d JSON or -d -"
            ) from error
    else:
        content = data.encode()
    try:
        json.loads(content)
    except ValueError as error:
        raise Failure(
            f"the request is not JSON ({error})",
            'write for example -d \'{"inputs": [{"name": "x", "shape": [1, 2],'
            ' "datatype": "FP32", "data": [1.0, 2.0]}]}\'',
        ) from error
    return content
