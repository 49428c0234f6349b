"""Read a request, answer it, end."""

import json
import os
import sys
from typing import BinaryIO, Callable

from windlass_adapters.slurm.remote.blobs import have
from windlass_adapters.slurm.remote.cancelling import bury, cancel
from windlass_adapters.slurm.remote.finding import find, named
from windlass_adapters.slurm.remote.greeting import hello
from windlass_adapters.slurm.remote.logs import logs
from windlass_adapters.slurm.remote.looking import look
from windlass_adapters.slurm.remote.outputs import collect
from windlass_adapters.slurm.remote.site import Answer, Refused, Request, Site
from windlass_adapters.slurm.remote.submitting import submit

COMMANDS = {
    "hello": hello,
    "find": find,
    "named": named,
    "have": have,
    "submit": submit,
    "look": look,
    "cancel": cancel,
    "bury": bury,
    "collect": collect,
    "logs": logs,
}


def answer_to(
    request: Request, stream: BinaryIO, reach: Callable[[Request], Site] = Site
) -> Answer:
    """Serve one request; what cannot be served is told, not raised."""
    try:
        site = reach(request)
        if request["command"] != "hello":
            site.check_owner()
        return {"ok": COMMANDS[request["command"]](site, request, stream)}
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
