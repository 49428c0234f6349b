"""A deliberate bug: the local runner, when it believes that every claim is its own."""

from __future__ import annotations

from pathlib import Path

from windlass_adapters.local import nursery, runner
from windlass_adapters.local.processes import this_process
from windlass_adapters.local.records import write_record


def claim_anyway(path: Path, *, durable: bool, ready: Path | None) -> bool:
    """Take a claim, whoever has it, and whatever was made ready for it."""
    write_record(path, this_process()._asdict(), durable=durable)
    return True


if __name__ == "__main__":
    setattr(runner, "claim", claim_anyway)  # noqa: B010 - replaced on purpose
    nursery.main()
