"""Programs as SageMaker processing: rendering (pure), and hops 5 and 7.

SageMaker runs a container and copies folders in and out; it knows no scripts. A start script of
ours, in the same archive as the program, makes of that what a Job is everywhere: a working
directory with its files, params as words and variables, outputs that must be there at the end.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace

from pydantic import JsonValue

from windlass_adapters.base import Desired, External, Found, Owner, State, Wanted
from windlass_adapters.program import arguments, text, variable
from windlass_adapters.sagemaker.answers import Answer, part, parts
from windlass_adapters.sagemaker.answers import text as text_of
from windlass_adapters.sagemaker.deployments import Renderer, vpc_config
from windlass_adapters.sagemaker.joboptions import JobOptions
from windlass_adapters.sagemaker.jobs import (
    START,
    Json,
    code_of,
    distribution,
    file_name,
    image_of,
    input_of,
    wanted,
)
from windlass_adapters.sagemaker.runstates import run_out
from windlass_adapters.sagemaker.storage import CODE
from windlass_adapters.sagemaker.training import Training, declared
from windlass_schemas import Artifact, Job, JobSpec, Reason

PROCESSING_ROLE = "processing"
MISSING = "OutputMissing: "
"""What the start script says when an output is not there."""
OUTPUT = "output"
"""The one folder that SageMaker copies back."""
_CODE = "windlass"
"""The input that brings the archive."""
_ROOT = "/opt/ml"
_MOST_INPUTS = 9
_MOST_SECONDS = 777_600
_LONGEST = 256


def wanted_processing(renderer: Renderer, desired: Desired, job: Job) -> Wanted:
    """The processing job of a Job. Raises TerminalError, and WaitingError for a missing input."""
    spec, options = job.spec, JobOptions.model_validate(job.spec.options)
    cluster: Json = {
        "InstanceType": options.instance_type or renderer.params.instance_type,
        "InstanceCount": options.instances,
        "VolumeSizeInGB": options.volume,
    }
    network: Json = {"EnableNetworkIsolation": options.isolated}
    if options.vpc is not None:
        network["VpcConfig"] = vpc_config(options.vpc)
    assert spec.time_limit is not None
    request: Json = {
        "AppSpecification": {
            "ImageUri": image_of(renderer, spec),
            "ContainerEntrypoint": ["/bin/sh", "-c", unpacking()],
        },
        "RoleArn": options.role or renderer.params.role,
        "ProcessingResources": {"ClusterConfig": cluster},
        "NetworkConfig": network,
        "StoppingCondition": {"MaxRuntimeInSeconds": int(spec.time_limit.total_seconds())},
        "Environment": dict(spec.env),
    }
    if options.kms_key is not None:
        cluster["VolumeKmsKeyId"] = options.kms_key
        request["ProcessingOutputConfig"] = {"KmsKeyId": options.kms_key}
    inputs: Json = {}
    places: dict[str, str] = {}
    taken: list[JsonValue] = []
    for name, url in sorted(options.channels.items()):
        taken.append(_input(name, distribution(options), url))
        places[name] = f"{_ROOT}/processing/input/{name}"
    for name, source in sorted(spec.inputs.items()):
        artifact = input_of(desired, name, source)
        inputs[name] = artifact.model_dump(mode="json", exclude_none=True)
        taken.append(_input(name))
        places[name] = f"{_ROOT}/processing/input/{name}/{file_name(artifact)}"
    request["ProcessingInputs"] = [_input(_CODE), *taken]
    uploads: Json = {
        "code": code_of(desired, spec),
        "start": start_script(spec, places),
        "inputs": inputs,
    }
    return wanted(renderer, desired, spec, (request, uploads), PROCESSING_ROLE)


def _input(name: str, spread: str = "FullyReplicated", url: str = "") -> Json:
    where: Json = {
        "LocalPath": f"{_ROOT}/processing/input/{name}",
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
        "S3DataDistributionType": spread,
    }
    if url:
        where["S3Uri"] = url
    return {"InputName": name, "S3Input": where}


def unpacking(root: str = _ROOT) -> str:
    """The container's command: unpack and start. SageMaker takes 256 characters of it."""
    home = f"{root}/processing"
    archive = f"{home}/input/{_CODE}/{CODE}"
    return f"mkdir -p {home}/work && cd {home}/work && tar -xzf {archive} && exec /bin/sh ./{START}"


def start_script(spec: JobSpec, inputs: Mapping[str, str], root: str = _ROOT) -> str:
    """What runs in the working directory. ``inputs`` are paths by name."""
    values = {variable("PARAM", name): text(value) for name, value in spec.params.items()}
    values |= {variable("INPUT", name): path for name, path in inputs.items()}
    work = f"{root}/processing/work"
    values |= {variable("OUTPUT", n): f"{work}/{path}" for n, path in spec.outputs.items()}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(values.items())]
    program = shlex.join(_program(spec))
    kept = [f"keep {shlex.quote(path)}" for path in dict.fromkeys(spec.outputs.values())]
    return "\n".join([*exports, _START.format(root=root, program=program), *kept, ""])


def _program(spec: JobSpec) -> list[str]:
    if spec.command is not None:
        return [*spec.command, *arguments(spec.params)]
    script = f"./{spec.entrypoint}"
    return [*(["python3", "-u"] if script.endswith(".py") else []), script, *arguments(spec.params)]


_START = """mkdir -p {root}/output
{program} &
child=$!
trap 'kill -TERM "$child"' TERM
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; status=$?; done
trap - TERM
if [ "$status" -ne 0 ]; then
  printf 'the program ended with status %s' "$status" >{root}/output/message
  exit "$status"
fi
keep() {{
  if [ ! -f "$1" ]; then
    printf 'OutputMissing: %s was not written' "$1" >{root}/output/message
    exit 1
  fi
  mkdir -p "{root}/processing/output/$(dirname "$1")" || exit 1
  cp "$1" "{root}/processing/output/$1" || exit 1
}}"""


def processing_faults(job: Job, options: JobOptions) -> Iterator[tuple[str, str]]:
    """What processing cannot do of a Job."""
    spec = job.spec
    if spec.time_limit is not None and spec.time_limit.total_seconds() > _MOST_SECONDS:
        yield "spec.timeLimit", "is 9d at most for processing"
    for field in ("spot", "metrics"):
        if getattr(options, field):
            yield f"spec.options.{field}", "is for training; leave it out, or type: processing"
    if len(spec.inputs) + len(options.channels) > _MOST_INPUTS:
        yield "spec.inputs", f"processing takes {_MOST_INPUTS} inputs and channels at most"
    if _CODE in spec.inputs or _CODE in options.channels:
        yield "spec.inputs", f"{_CODE} is the name of an input of Windlass's own; choose another"
    if len(spec.env) > 100:
        yield "spec.env", "processing takes 100 variables at most"
    for name, value in spec.env.items():
        if len(value) > _LONGEST:
            yield f"spec.env.{name}", f"processing takes {_LONGEST} characters at most; use params"


class Processing(Training):
    """The processing jobs of one Target."""

    noun = "ProcessingJob"
    role = PROCESSING_ROLE
    type = "sagemaker:processing-job"
    log_group = "ProcessingJobs"

    def request(self, wanted: Wanted) -> Json:
        request = json.loads(json.dumps(wanted.body["request"]))
        assert isinstance(request, dict)
        folder, uploads = str(wanted.body["folder"]), wanted.body["uploads"]
        assert isinstance(uploads, dict)
        keys = self._backend.storage.keys
        inputs = uploads["inputs"]
        assert isinstance(inputs, dict)
        for given in request["ProcessingInputs"]:
            where, name = given["S3Input"], given["InputName"]
            if name == _CODE:
                where["S3Uri"] = keys.url(f"{folder}{CODE}")
            elif name in inputs:
                where["S3Uri"] = self.place(folder, Artifact.model_validate(inputs[name]))
        if wanted.body["outputs"]:
            place: Json = {
                "S3Uri": keys.url(f"{folder}output/{wanted.name}"),
                "LocalPath": f"{_ROOT}/processing/output",
                "S3UploadMode": "EndOfJob",
            }
            config = request.setdefault("ProcessingOutputConfig", {})
            config["Outputs"] = [{"OutputName": OUTPUT, "S3Output": place}]
        else:
            request.pop("ProcessingOutputConfig", None)
        return request

    def _found(
        self, owner: Owner, external: External, answer: Answer, tags: Mapping[str, str]
    ) -> Found:
        found = super()._found(owner, external, answer, tags)
        if found.state is not State.FAILED:
            return found
        if run_out(answer, "Processing"):
            message = "it took longer than timeLimit; raise that, or make it faster"
            return replace(
                found,
                reason=Reason.TIME_LIMIT_EXCEEDED,
                message=message,
                attempt_counts=True,
            )
        said = text_of(answer, "ExitMessage")
        if said.startswith(MISSING):
            message = f"{said.removeprefix(MISSING)}; write it, or mend spec.outputs"
            return replace(found, reason=Reason.OUTPUT_MISSING, message=message)
        if said and said not in found.message:
            return replace(found, message=f"{found.message} ({said})")
        return found

    def outputs(self, answer: Answer, tags: Mapping[str, str]) -> dict[str, Artifact]:
        outputs = parts(part(answer, "ProcessingOutputConfig"), "Outputs")
        place = text_of(part(next(outputs, {}), "S3Output"), "S3Uri")
        return declared(tags, lambda path: f"{place}/{path}")

    def machines(self, answer: Answer) -> Answer:
        return part(part(answer, "ProcessingResources"), "ClusterConfig")
