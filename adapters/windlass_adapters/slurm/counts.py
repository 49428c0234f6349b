"""What a Target costs its cluster, in numbers for Prometheus: beside hops 5 and 7."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from windlass_adapters.base import AdapterError, Number


def word_of(error: AdapterError) -> str:
    """``transient``, ``waiting``, ``terminal`` or ``ambiguous``."""
    return type(error).__name__.removesuffix("Error").lower()


class Counts:
    """Counted where it happens; read by ``numbers`` when somebody scrapes."""

    def __init__(self) -> None:
        self.authentications = 0
        """Connections that were made: each is one authentication over there."""
        self.execs: Counter[tuple[str, str]] = Counter()
        """Commands on the login node, by command and result."""
        self.submissions: Counter[str] = Counter()
        """Runs that were given to sbatch, by result."""
        self.look_seconds = 0.0
        """How long the looks that came to an answer took, all together."""
        self.jobs: Mapping[str, int] = {}
        """Jobs of ours in the queue, by Slurm's state, as the last look showed them."""
        self.tracked = 0
        """Runs that are looked for."""

    def numbers(self) -> Iterator[Number]:
        """All of them; those without labels are there from the start."""
        yield Number(
            "slurm_authentications", "counter", "SSH connections made.", self.authentications
        )
        told = "Commands run on the login node, by command and result."
        for (command, result), count in sorted(self.execs.items()):
            labels = {"command": command, "result": result}
            yield Number("slurm_execs", "counter", told, count, labels)
        told = "Runs given to sbatch, by result."
        for result, count in sorted(self.submissions.items()):
            yield Number("slurm_submissions", "counter", told, count, {"result": result})
        looks = self.execs["look", "ok"]
        yield Number("slurm_looks", "counter", "Looks at the queue: one RPC each.", looks)
        told = "Time that these looks took."
        yield Number("slurm_look_seconds", "counter", told, self.look_seconds)
        told = "Jobs of ours in the queue at the last look, by Slurm's state."
        for state, count in sorted(self.jobs.items()):
            yield Number("slurm_jobs", "gauge", told, count, {"state": state})
        yield Number("slurm_tracked_runs", "gauge", "Runs that are looked for.", self.tracked)
