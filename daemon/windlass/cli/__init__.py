"""The command line. Beside the eight hops: it asks the running daemon over its HTTP API.

Imports are late on purpose: ``windlass --help`` loads neither the server nor the runtime of models.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The console script ``windlass``."""
    from windlass.cli.root import run

    sys.exit(run(sys.argv[1:]))
