"""Training jobs: hops 5 and 7 for what runs to an end.

Completed is the only success; Stopped is none. A job is made once under its name and never changed.
What it leaves in S3 stays there when its record goes: models are served from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import JsonValue

from windlass_adapters.base import (
    Absent,
    External,
    Found,
    Observation,
    Owner,
    State,
    TerminalError,
    TransientError,
    Wanted,
)
from windlass_adapters.sagemaker.answers import Answer, moment, number, part, text
from windlass_adapters.sagemaker.api import PAGE
from windlass_adapters.sagemaker.deployments import MODEL_ROLE
from windlass_adapters.sagemaker.errors import AbsentError, ExistsError
from windlass_adapters.sagemaker.immutables import Backend
from windlass_adapters.sagemaker.inventory import Section
from windlass_adapters.sagemaker.jobs import OUTPUTS, RUN_ROLE
from windlass_adapters.sagemaker.names import HASH_TAG, conflict, tag_list
from windlass_adapters.sagemaker.runstates import run_state
from windlass_adapters.sagemaker.storage import CODE
from windlass_adapters.sagemaker.uploads import input_key, wanted_uploads
from windlass_schemas import Artifact, digest_of

LIST_AGE = 30.0
"""Seconds for which a list of running jobs answers."""
TERMINAL = frozenset({"Completed", "Failed", "Stopped"})
Json = dict[str, JsonValue]


class Training:
    """The training jobs of one Target."""

    noun = "TrainingJob"
    role = RUN_ROLE
    type = "sagemaker:training-job"
    """As tag queries name it."""
    log_group = "TrainingJobs"
    """Below ``/aws/sagemaker`` in CloudWatch."""
    log_mark = "/"
    """What follows its name in the names of its log streams."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._running = Section(self._list, LIST_AGE, backend.api.now)
        self._known: dict[str, tuple[Answer, dict[str, str]]] = {}

    async def _list(self) -> dict[str, tuple[str, datetime | None]]:
        pages = self._backend.api.pages(
            "sagemaker",
            f"List{self.noun}s",
            f"{self.noun}Summaries",
            StatusEquals="InProgress",
            MaxResults=PAGE,
        )
        return {text(job, f"{self.noun}Name"): self._mark(job) async for job in pages}

    async def ended(self, name: str) -> datetime | None:
        """When it ended; None while it goes on. What is not there any more ended long ago."""
        held = self._known.get(name)
        if held is not None and text(held[0], f"{self.noun}Status") in TERMINAL:
            answer = held[0]
        elif (read := await self._read(name)) is None:
            return datetime.fromtimestamp(0, UTC)
        else:
            answer = read[0]
        if text(answer, f"{self.noun}Status") not in TERMINAL:
            return None
        end = moment(answer, f"{self.noun.removesuffix('Job')}EndTime")
        return end or datetime.fromtimestamp(0, UTC)

    async def running(self) -> dict[str, tuple[str, datetime | None]]:
        """What is under way in the account, ours or not: status and time of change, by name."""
        return await self._running.get()

    def _mark(self, answer: Answer) -> tuple[str, datetime | None]:
        return text(answer, f"{self.noun}Status"), moment(answer, "LastModifiedTime")

    async def look(self, owner: Owner, external: External) -> Observation:
        name = external.name
        known = self._known.get(name)
        if (
            known is not None
            and not self._backend.inventory.is_hot(self.role, name)
            and (await self._running.get()).get(name) == self._mark(known[0])
        ):
            return self._found(owner, external, *known)
        read = await self._read(name)
        if read is None:
            if self._backend.inventory.made_just_now(self.role, name):
                message = f"{name} is not shown yet"
                return Found(external, owner.uid, State.PROGRESSING, message=message)
            return Absent()
        self._backend.inventory.cool(self.role, name)
        return self._found(owner, external, *read)

    async def _read(self, name: str) -> tuple[Answer, dict[str, str]] | None:
        try:
            answer = await self._backend.api.sagemaker(
                f"Describe{self.noun}", **{f"{self.noun}Name": name}
            )
        except AbsentError:
            self._known.pop(name, None)
            return None
        held = self._known.get(name)
        tags = held[1] if held else await self._backend.tags(text(answer, f"{self.noun}Arn"))
        self._known[name] = (answer, tags)
        return self._known[name]

    def _found(
        self, owner: Owner, external: External, answer: Answer, tags: Mapping[str, str]
    ) -> Found:
        status = text(answer, f"{self.noun}Status")
        state, reason, message, counts = run_state(
            status, text(answer, "SecondaryStatus"), text(answer, "FailureReason")
        )
        return Found(
            external,
            self._backend.identity.owner_uid(owner, tags) or "nobody",
            state,
            digest=tags.get(HASH_TAG),
            reason=reason,
            message=message,
            attempt_counts=counts,
            outputs=self.outputs(answer, tags) if state is State.SUCCEEDED else {},
            detail=self.detail(answer),
        )

    def outputs(self, answer: Answer, tags: Mapping[str, str]) -> dict[str, Artifact]:
        """What it has left behind, under the names that were declared."""
        model = text(part(answer, "ModelArtifacts"), "S3ModelArtifacts")
        folder = model.rpartition("/")[0]
        return declared(tags, {OUTPUTS[0]: model, OUTPUTS[1]: f"{folder}/{OUTPUTS[1]}"}.get)

    def machines(self, answer: Answer) -> Answer:
        """What says on which machines it runs."""
        return part(answer, "ResourceConfig")

    def detail(self, answer: Answer) -> Json:
        """What the status shows."""
        resources = self.machines(answer)
        shown: Json = {
            "status": text(answer, f"{self.noun}Status"),
            "secondary": text(answer, "SecondaryStatus"),
            "instanceType": text(resources, "InstanceType"),
            "instances": int(number(resources, "InstanceCount") or 0),
            "billableSeconds": number(answer, "BillableTimeInSeconds"),
        }
        return {"run": {k: v for k, v in shown.items() if v not in ("", None)}}

    async def create(self, owner: Owner, wanted: Wanted) -> Found:
        external = External(self.role, wanted.name, wanted.name)
        tags = {
            **_texts(wanted.body["tags"]),
            HASH_TAG: wanted.digest,
            **outputs_tags(_texts(wanted.body["outputs"])),
        }
        request = self.request(wanted)
        await self._check_uploads(wanted)
        self._backend.inventory.heat(self.role, wanted.name)
        try:
            await self._backend.api.sagemaker(
                f"Create{self.noun}",
                **{f"{self.noun}Name": wanted.name},
                **request,
                Tags=tag_list(tags),
            )
        except ExistsError:
            return await self._take(owner, external)
        except AbsentError as error:  # its model: made a moment ago, or gone by another daemon
            self._backend.inventory.heat(MODEL_ROLE, str(request.get("ModelName")))
            raise TransientError(f"{error}; looking again") from None
        self._backend.inventory.heat(self.role, wanted.name, made=True)
        message = f"SageMaker has taken {wanted.name}"
        return Found(external, owner.uid, State.PROGRESSING, message=message)

    async def _take(self, owner: Owner, external: External) -> Found:
        """It is there: made by us, though the reply was lost, or another's."""
        self._known.pop(external.name, None)
        read = await self._read(external.name)
        if read is None:
            raise TransientError(f"{external.name} was there and is not; looking again")
        if not self._backend.identity.owns(owner, read[1]):
            raise conflict(f"job {external.name}", read[1])
        return self._found(owner, external, *read)

    async def _check_uploads(self, wanted: Wanted) -> None:
        """Whether all that it reads is there still: else it would run, and fail, without."""
        for upload in wanted_uploads(wanted):
            if not await self._backend.storage.has(upload.name):
                self._backend.inventory.heat(upload.role, upload.name)
                raise TransientError(f"{upload.name} is gone from the bucket; sending it anew")

    def request(self, wanted: Wanted) -> Json:
        """The whole request."""
        request = json.loads(json.dumps(wanted.body["request"]))
        assert isinstance(request, dict)
        self.complete(wanted, request, "HyperParameters")
        return request

    def complete(self, wanted: Wanted, request: Json, parameters: str) -> None:
        """Put in the addresses of what it reads, and of what it is to make."""
        folder, uploads = str(wanted.body["folder"]), wanted.body["uploads"]
        assert isinstance(uploads, dict)
        keys = self._backend.storage.keys
        code, inputs = uploads["code"], uploads["inputs"]
        assert isinstance(inputs, dict)
        if code:
            hyper = request[parameters]
            assert isinstance(hyper, dict)
            hyper["sagemaker_submit_directory"] = json.dumps(keys.url(f"{folder}{CODE}"))
            hyper["sagemaker_region"] = json.dumps(self._backend.region)
        channels = request.get("InputDataConfig", [])
        assert isinstance(channels, list)
        for channel in channels:
            assert isinstance(channel, dict)
            given = inputs.get(str(channel["ChannelName"]))
            if given is not None:
                source = channel["DataSource"]
                assert isinstance(source, dict)
                where = source["S3DataSource"]
                assert isinstance(where, dict)
                where["S3Uri"] = self.place(folder, Artifact.model_validate(given))
        output = request.setdefault("OutputDataConfig", {})
        assert isinstance(output, dict)
        output["S3OutputPath"] = keys.url(f"{folder}output")
        checkpoints = request.get("CheckpointConfig")
        if isinstance(checkpoints, dict):
            checkpoints["S3Uri"] = keys.url(f"{folder}checkpoints")

    def place(self, folder: str, artifact: Artifact) -> str:
        """Where an input lies in S3."""
        return artifact.url or self._backend.storage.keys.url(input_key(folder, artifact))

    async def update(self, owner: Owner, external: External, wanted: Wanted) -> Found:
        raise TerminalError(f"{external.name}: a run is made once and never changed")

    async def delete(self, owner: Owner, external: External) -> None:
        """Stop it; once it is over, remove its record and its checkpoints."""
        self._known.pop(external.name, None)
        self._backend.inventory.heat(self.role, external.name)
        read = await self._read(external.name)
        if read is None:
            return
        answer, tags = read
        if not self._backend.identity.owns(owner, tags):
            raise conflict(f"job {external.name}", tags)
        status = text(answer, f"{self.noun}Status")
        if status == "InProgress":
            name = {f"{self.noun}Name": external.name}
            await self._backend.api.sagemaker(f"Stop{self.noun}", **name)
        elif status in TERMINAL:
            base = external.name.rpartition("-a")[0]
            folder = f"{self._backend.storage.keys.folder(owner)}{base}/"
            await self._backend.storage.delete_folder(f"{folder}checkpoints/")
            await self.forget(external.name, answer)

    async def forget(self, name: str, answer: Answer) -> None:
        """Remove the record of what is over."""
        with suppress(AbsentError):
            await self._backend.api.sagemaker(f"Delete{self.noun}", **{f"{self.noun}Name": name})


def _texts(value: JsonValue) -> dict[str, str]:
    assert isinstance(value, dict)
    return {key: str(item) for key, item in value.items()}


_OUTPUT_TAG = "windlass:output."


def outputs_tags(outputs: Mapping[str, str]) -> dict[str, str]:
    """Declared outputs travel as tags, so that a look needs nothing but the job itself."""
    return {f"{_OUTPUT_TAG}{name}": path for name, path in outputs.items()}


def declared(tags: Mapping[str, str], place_of: Callable[[str], str | None]) -> dict[str, Artifact]:
    """The declared outputs, at the addresses where they lie."""
    found = {}
    for tag, path in tags.items():
        if tag.startswith(_OUTPUT_TAG) and (url := place_of(path)):
            found[tag.removeprefix(_OUTPUT_TAG)] = Artifact(
                digest=digest_of({"url": url}), size=0, name=path, url=url
            )
    return found
