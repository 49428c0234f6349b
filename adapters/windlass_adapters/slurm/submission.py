"""Submissions, many in one command: hop 7.

What several objects want at the same time goes over there together. Each gets its own answer, and
sending the same run twice submits it once: the run's folder says what became of the first time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from windlass_adapters.base import (
    AdapterError,
    AmbiguousError,
    Create,
    Owner,
    TerminalError,
    TransientError,
)
from windlass_adapters.secrets import resolve_secret
from windlass_adapters.slurm.counts import word_of
from windlass_adapters.slurm.gathering import Gathering
from windlass_adapters.slurm.jobs import RunBody
from windlass_adapters.slurm.login import Login, storage
from windlass_adapters.slurm.naming import Place, earlier_attempts, place_of
from windlass_adapters.slurm.params import SlurmParams
from windlass_adapters.slurm.refusals import refusal_of
from windlass_adapters.slurm.script import (
    declared,
    files_of,
    sbatch_args,
    shape_of,
    texts_of,
)
from windlass_adapters.slurm.staging import Staging


@dataclass(frozen=True)
class Submission:
    """One run on its way."""

    place: Place
    request: Mapping[str, JsonValue]
    digests: frozenset[str]


class Submitter:
    """Sends runs to a cluster."""

    def __init__(self, login: Login, staging: Staging, params: SlurmParams, target: str) -> None:
        self._login = login
        self._staging = staging
        self._params = params
        self._target = target
        self._send: Gathering[Submission, str] = Gathering(self._submit, params.limits.batch)

    async def submit(self, owner: Owner, action: Create) -> str:
        """Stage and submit a run; its job's id. Raises AdapterError.

        A run that was submitted before is not submitted again.
        """
        submission = self._render(owner, action)
        await self._staging.prepare(submission.digests)
        return await self._send(submission)

    def _render(self, owner: Owner, action: Create) -> Submission:
        body = RunBody.model_validate(action.wanted.body)
        name = action.wanted.name
        place = place_of(self._target, owner, name)
        texts = texts_of(self._login.root, place, owner, action.attempt, body, self._params)
        environment = {each: resolve_secret(value) for each, value in body.env.items()}
        texts["environ.sh"] += declared(environment)
        secrets = [
            environment[n] for n, said in body.env.items() if environment[n] not in ("", said)
        ]
        if secrets:
            texts["hide"] = json.dumps(secrets)
        args = sbatch_args(owner, body)
        files = files_of(body)
        previous = earlier_attempts(name) if body.array is not None else ()
        request: dict[str, JsonValue] = {
            "tag": place.owner,
            "token": place.token,
            "order": _order(owner, action, body),
            "files": [list(file) for file in files],
            "texts": dict(texts),
            "args": list(args),
            "array": list(body.array) if body.array is not None else None,
            "limit": body.limit,
            "previous": [place_of(self._target, owner, each).token for each in previous],
            "group": shape_of(body, args),
        }
        return Submission(place, request, frozenset(str(file[1]) for file in files))

    async def _submit(self, batch: Sequence[Submission]) -> Sequence[str | AdapterError]:
        answers = await self._call(batch)
        again = [s for s in batch if isinstance(_of(answers, s).get("missing"), list)]
        if again:  # somebody cleaned that disk
            for submission in again:
                self._staging.lost(submission.digests)
                await self._staging.prepare(submission.digests)
            answers |= await self._call(again)
        outcomes = [_outcome(_of(answers, submission)) for submission in batch]
        self._login.counts.submissions.update(
            word_of(each) if isinstance(each, AdapterError) else "ok" for each in outcomes
        )
        return outcomes

    async def _call(self, batch: Sequence[Submission]) -> dict[str, JsonValue]:
        digests = {digest for submission in batch for digest in submission.digests}
        heads, contents = await self._staging.small(digests)
        greeting = await self._login.greeting()
        request: dict[str, JsonValue] = {
            "runs": [dict(submission.request) for submission in batch],
            "blobs": [list(head) for head in heads],
            "batch": self._login.script.name,
            "max_array": greeting.max_array,
            "abreast": self._params.limits.sbatch,
        }
        found = (await self._login.call("submit", request, contents)).get("runs")
        self._staging.arrived(str(head[0]) for head in heads)
        return found if isinstance(found, dict) else {}


def _order(owner: Owner, action: Create, body: RunBody) -> dict[str, JsonValue]:
    """``order.json``: whose run it is and what is expected of it. Never a secret."""
    return {
        "install": owner.install,
        "uid": owner.uid,
        "key": str(owner.key),
        "name": action.wanted.name,
        "digest": action.wanted.digest,
        "attempt": action.attempt,
        "outputs": dict(body.outputs),
        "array": list(body.array) if body.array is not None else None,
        "requeue": body.options.requeue,
    }


def _of(answers: Mapping[str, JsonValue], submission: Submission) -> Mapping[str, JsonValue]:
    found = answers.get(submission.place.token)
    return found if isinstance(found, dict) else {}


def _outcome(told: Mapping[str, JsonValue]) -> str | AdapterError:
    """The id of the job, or why there is none."""
    match told:
        case {"id": str(id_)}:
            return id_
        case {"unclear": str(why)}:
            return AmbiguousError(f"{why}; the job is looked for by its name")
        case {"refused": str(why)}:
            return TerminalError(f"the run is not submitted: {why}")
        case {"storage": str(why)}:
            return storage(why)
        case {"missing": list(digests)}:
            return TransientError(f"{len(digests)} files did not reach the cluster; trying again")
        case {"error": str(text), "code": int() | None as code}:
            return refusal_of(code, text)
    return AmbiguousError("the cluster gave no answer for this run")
