"""Read a request, answer it, end."""

import json
import os
import sys
from typing import BinaryIO, Callable

from windlass_adapters.slurm.remote.site import Answer, Refused, Request, Site

COMMANDS = {
    "hello": "greeting",
    "find": "finding",
    "named": "finding",
    "have": "blobs",
    "submit": "submitting",
    "look": "looking",
    "cancel": "cancelling",
    "bury": "cancelling",
    "collect": "outputs",
    "logs": "logs",
}
"""Command -> its module: only that one is loaded, since loading takes longer than most answers."""


def command_of(name: str) -> Callable[[Site, Request, BinaryIO], Answer]:
    """The function behind a command."""
    module = __import__("windlass_adapters.slurm.remote." + COMMANDS[name], fromlist=[name])
    found: Callable[[Site, Request, BinaryIO], Answer] = getattr(module, name)
    return found


def answer_to(
    request: Request, stream: BinaryIO, reach: Callable[[Request], Site] = Site
) -> Answer:
    """Serve one request; what cannot be served is told, not raised."""
    try:
        site = reach(request)
        if request["command"] != "hello":
            site.check_owner()
        return {"ok": command_of(request["command"])(site, request, stream)}
    except Refused as error:
        return {"kind": error.kind, "text": str(error)}
    except OSError as error:
        where = " (%s)" % error.filename if error.filename else ""
        return {
            "kind": "os",
            "errno": error.errno or 0,
            "text": (error.strerror or str(error)) + where,
        }


def main() -> None:
    """Read a request, answer it, end."""
    os.umask(0o077)
    stream = sys.stdin.buffer
    request = json.loads(stream.readline().decode())
    answer = json.dumps(answer_to(request, stream))
    sys.stdout.write("\n%s\n%s\n%s\n" % (request["nonce"], answer, request["nonce"]))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
