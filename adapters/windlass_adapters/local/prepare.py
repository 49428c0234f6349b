"""The process that gets and checks a Model's artifact: started in hop 7, read in hop 5.

``python -m windlass_adapters.local.prepare FOLDER``. Apart from the daemon, so that a slow download
or a hostile file harms nothing but itself. It takes the folder's claim, then loads what it needs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from windlass_adapters.local.processes import detach
from windlass_adapters.local.records import claim

CLAIM, ORDER, RESULT = "claim.json", "order.json", "result.json"


def main() -> None:
    """Prepare the artifact that the order in the folder names."""
    folder = Path(sys.argv[1])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    ready = detach()
    try:
        if not claim(folder / CLAIM):
            return
    except FileNotFoundError:
        return  # deleted before it began
    ready()
    # Only now, for it takes a while and somebody waits for the claim.
    from windlass_adapters.local.inspection import inspect_order
    from windlass_adapters.local.storage import save

    result = inspect_order(folder / ORDER)
    if folder.exists():
        save(folder / RESULT, result)


if __name__ == "__main__":
    main()
