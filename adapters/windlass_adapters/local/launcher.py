"""Starts a program that outlives the daemon: hop 7, for the serving process.

``python -m windlass_adapters.local.launcher RECORD MODULE [ARGUMENT ...]``. Notes in RECORD which
process it becomes, then becomes that module. Standard library only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from windlass_adapters.local.processes import detach, this_process
from windlass_adapters.local.records import write_record


def main() -> None:
    """Become the module that the arguments name, in a session of its own."""
    record, *rest = sys.argv[1:]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    ready = detach()
    write_record(Path(record), this_process()._asdict())
    ready()
    os.execv(sys.executable, [sys.executable, "-P", "-m", *rest])


if __name__ == "__main__":
    main()
