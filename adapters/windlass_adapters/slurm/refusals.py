"""What sbatch's words mean: hop 7, pure. Only known phrases count; Slurm speaks English here.

A time-out is no refusal: the controller may have the job already.
"""

from __future__ import annotations

import re

from windlass_adapters.base import (
    AdapterError,
    AmbiguousError,
    TerminalError,
    TransientError,
    WaitingError,
)
from windlass_adapters.slurm.login import storage
from windlass_schemas import Reason

_AMBIGUOUS = re.compile(
    r"Socket timed out|Zero Bytes were transmitted|Unexpected message received"
    r"|[Ss]end/receive failure|Transport endpoint is not connected|Connection reset"
)
_UNREACHABLE = re.compile(
    r"Unable to contact slurm controller|Munge encode failed|Protocol authentication error"
    r"|Connection refused|slurmdbd|Invalid authentication credential"
)
_THROTTLED = re.compile(r"temporarily unavailable|queue full|Rate limit exceeded|Slurm temporarily")
_QUOTA = re.compile(
    r"AssocMaxSubmitJobLimit|QOSMaxSubmitJob|GrpSubmitJobs|MaxSubmitJobs|AssocGrpSubmit"
    r"|QOSGrpSubmit|job submit limit|submit limit"
)
_PAUSED = re.compile(
    r"submissions disabled|partition is (inactive|down|drain)|inactive or (down|drain)"
    r"|I/O error writing script|Required partition not available"
)
_STORAGE = re.compile(r"Disk quota exceeded|No space left|Stale file handle|Read-only file system")
_NOISE = re.compile(r"^sbatch: (error: )?|^Batch job submission failed: ", re.MULTILINE)


def refusal_of(code: int | None, text: str) -> AdapterError:
    """The error that an sbatch without an id stands for. ``code`` is None when it was stopped."""
    said = _last_words(text)
    if code is None or code in (124, 137) or _AMBIGUOUS.search(text):
        return AmbiguousError(
            f"Slurm gave no clear answer to the submission ({said or 'no word'});"
            " the job is looked for by its name"
        )
    if _UNREACHABLE.search(text):
        return TransientError(f"Slurm does not answer: {said}")
    if _STORAGE.search(text):
        return storage(said)
    if _THROTTLED.search(text):
        return WaitingError(f"Slurm is busy: {said}")
    if _QUOTA.search(text):
        return WaitingError(f"no more jobs may be queued for now: {said}")
    if _PAUSED.search(text):
        return WaitingError(f"the site takes no jobs there for now: {said}")
    return TerminalError(
        f"Slurm refused the job: {said or f'exit code {code}'}; mend spec.options",
        reason=Reason.BACKEND_REFUSED,
    )


def _last_words(text: str) -> str:
    lines = [_NOISE.sub("", _NOISE.sub("", line)).strip() for line in text.splitlines()]
    return "; ".join([line for line in lines if line][-2:])
