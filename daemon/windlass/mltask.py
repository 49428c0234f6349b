"""The JSON configuration of an older job submitter, as specs. Beside the eight hops; pure.

One file names several ``clusters`` and ``runner_location`` picks one of them. Only the Job and its
place come out of it: the picked cluster's partition, account and image become the Job's, so that
changing ``runner_location`` moves the Job and leaves nothing of the old place behind.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

Spec = dict[str, JsonValue]

_ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9._-]+)@)?(?P<host>[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<root>/.+)"
)


class MltaskError(ValueError):
    """The configuration cannot be turned into specs; the message says where and why."""


class Infra(BaseModel):
    """One cluster, as the configuration describes it."""

    model_config = ConfigDict(extra="allow")

    instance_type: str = ""
    """The partition, whatever its name says."""
    image_name: str = ""
    account: str = ""
    role: str = ""
    """Only of SageMaker."""


class Cluster(BaseModel):
    """An entry of ``clusters``."""

    infra_config: Infra


class Execution(BaseModel):
    """An entry of ``backend_execution``."""

    model_config = ConfigDict(extra="allow")

    tracking_uri: str = ""


class Backend(BaseModel):
    """What surrounds it."""

    execution_config: Execution = Execution()


class Config(BaseModel):
    """The whole file. Unknown fields are left alone, as the older system did."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    runner_location: str
    clusters: dict[str, Cluster] = Field(min_length=1)
    experiment_name: str = Field(min_length=1)
    dataset_name: str = ""
    model_params: dict[str, bool | int | float | str] = {}
    model_tracking: bool = False
    tracking_uri: str = ""
    execution_mode: str = ""
    backend_execution: dict[str, Backend] = {}
    project_path: str = ""
    command: str = ""


@dataclass(frozen=True)
class Places:
    """What the older system kept in its environment instead of in the file."""

    images: str = ""
    """Folder of the images on the cluster."""
    datasets: str = ""
    """Folder of the datasets on the cluster."""
    addresses: Mapping[str, str] | None = None
    """Cluster -> ``[USER@]HOST[:PORT]/ROOT``."""


@dataclass(frozen=True)
class Program:
    """The script or archive that goes with the configuration."""

    entrypoint: str
    """The script's name; empty for an archive."""
    files: Sequence[str] = ()
    """Everything else that the run needs."""
    has_dataset: bool = False
    """Whether the dataset lies beside the configuration."""


def parse(text: str, where: str) -> Config:
    """Read the configuration. Raises MltaskError with every fault."""
    try:
        config = Config.model_validate_json(text)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise MltaskError(f"{where}: " + "; ".join(faults)) from None
    if config.runner_location not in config.clusters:
        known = ", ".join(sorted(config.clusters))
        raise MltaskError(
            f"{where}: runner_location: {config.runner_location} is none of the clusters ({known})"
        )
    if config.clusters[config.runner_location].infra_config.role:
        raise MltaskError(
            f"{where}: clusters.{config.runner_location}: this is an account at SageMaker, not a"
            " Slurm cluster; declare its Target and Job by hand (docs/kinds/job.md)"
        )
    return config


def specs(
    config: Config, program: Program, places: Places, outputs: Mapping[str, str]
) -> list[Spec]:
    """The documents: Targets whose address is known, then the Job."""
    found = [
        _target(name, address)
        for name, address in sorted((places.addresses or {}).items())
        if name in config.clusters
    ]
    return [*found, _job(config, program, places, outputs)]


def name_of(text: str) -> str:
    """A name of an object that resembles a text."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:50].strip("-")
    if not plain:
        raise MltaskError(f"experiment_name: {text!r} holds neither a letter nor a digit")
    return plain


def _target(name: str, address: str) -> Spec:
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise MltaskError(f"{name}={address}: write NAME=[USER@]HOST[:PORT]/FOLDER/ON/SCRATCH")
    params: Spec = {"host": found["host"]}
    if found["port"]:
        params["port"] = int(found["port"])
    if found["user"]:
        params["user"] = found["user"]
    params["remoteRoot"] = found["root"]
    return _document("Target", name_of(name), {"adapter": "slurm", "params": params})


def _job(config: Config, program: Program, places: Places, outputs: Mapping[str, str]) -> Spec:
    infra = config.clusters[config.runner_location].infra_config
    spec: Spec = {**_what_runs(config, program, places), "target": name_of(config.runner_location)}
    files = sorted({*program.files, *([config.dataset_name] if program.has_dataset else [])})
    if files:
        spec["files"] = [*files]
    if infra.image_name:
        spec["image"] = _image(infra.image_name, places.images)
    if environment := _tracking(config):
        spec["env"] = dict(environment)
    if outputs:
        spec["outputs"] = dict(outputs)
    spec["options"] = _options(infra, places)
    spec["onChange"] = "replace"  # it moves at once, and does not finish at the old place first
    return _document("Job", name_of(config.experiment_name), spec)


def _what_runs(config: Config, program: Program, places: Places) -> Spec:
    if config.command:
        return {"command": [*shlex.split(config.command)]}
    if config.execution_mode == "mlflow":
        project = config.project_path or "."
        words = ["mlflow", "run", "--experiment-name", config.experiment_name, project]
        return {"command": [*words]}
    if not program.entrypoint:
        raise MltaskError("command: an archive needs a command that says what to run in it")
    params: Spec = {}
    if config.dataset_name:
        data = PurePosixPath(config.dataset_name)
        on_cluster = places.datasets and not program.has_dataset
        params["input_path"] = str(PurePosixPath(places.datasets) / data if on_cluster else data)
    params["output_path"] = "."
    return {"entrypoint": program.entrypoint, "params": {**params, **config.model_params}}


def _image(name: str, folder: str) -> str:
    if "://" in name or name.startswith("/"):
        return name
    file = name if name.endswith(".sif") else f"{name}.sif"
    return str(PurePosixPath(folder) / file) if folder else file


def _tracking(config: Config) -> dict[str, str]:
    """MLflow's own variables, where the file wants its runs to be tracked."""
    declared = config.backend_execution.get(config.execution_mode, Backend())
    uri = declared.execution_config.tracking_uri or config.tracking_uri
    if not uri or not (config.model_tracking or config.execution_mode == "mlflow"):
        return {}
    return {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": config.experiment_name}


def _options(infra: Infra, places: Places) -> Spec:
    options: Spec = {"nodes": 1, "ntasks": 1, "exclusive": True}
    if infra.instance_type:
        options["partition"] = infra.instance_type
    if infra.account:
        options["account"] = infra.account
    container: Spec = {"nv": True} if infra.image_name else {}
    if infra.image_name and places.datasets:
        container["binds"] = [places.datasets]
    return {**options, "container": container} if container else options


def _document(kind: str, name: str, spec: Spec) -> Spec:
    return {"apiVersion": "windlass/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
