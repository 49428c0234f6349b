"""``windlass import``: specs from what another system was told. Needs no daemon."""

from __future__ import annotations

import shutil
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import yaml
from pydantic import ValidationError

from windlass.cli.failure import Failure
from windlass.cli.terminal import note
from windlass.mltask import Config, MltaskError, Places, Program, Spec, name_of, parse, specs
from windlass_schemas import parse_resource

_MADE = "# Made by windlass import mltask"
_LARGEST = 1 << 30
"""Bytes that an archive may unpack to."""


def mltask(
    config: Path, script: Path, to: Path, places: Places, outputs: Mapping[str, str]
) -> None:
    """Write the specs and what they need into a folder; again with each change of the file."""
    try:
        found = parse(_text(config), str(config))
        program = _bring(config, found, script, to)
        documents = specs(found, program, places, outputs)
        _check(documents)
    except MltaskError as error:
        raise Failure(str(error), "mend the configuration, or write the spec by hand") from None
    for document in documents:
        _write(to, document)
    written = {str(d["metadata"]["name"]) for d in documents if d["kind"] == "Target"}  # type: ignore[call-overload, index] # both are made above
    target = name_of(found.runner_location)
    if target not in written:
        note(
            f"Target/{target} is yours to declare; or give --cluster"
            f" {found.runner_location}=USER@HOST/FOLDER/ON/SCRATCH"
        )
    note(f"{len(documents)} documents in {to}; commit them, and change runner_location to move")


def pairs(words: Sequence[str], flag: str) -> dict[str, str]:
    """``NAME=VALUE`` words. Raises Failure."""
    found = dict(word.partition("=")[::2] for word in words)
    for name, value in found.items():
        if not name or not value:
            raise Failure(f"{flag} {name}={value}", f"write {flag} NAME=VALUE")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {error}", "give the JSON configuration") from None


def _bring(config: Path, found: Config, script: Path, to: Path) -> Program:
    """Copy the script or unpack the archive, and the dataset if it lies beside the file."""
    if not script.is_file():
        raise Failure(f"there is no {script}", "give the script, or the .zip with the project")
    to.mkdir(parents=True, exist_ok=True)
    dataset = config.parent / found.dataset_name
    has_dataset = bool(found.dataset_name) and dataset.is_file() and _inside(found.dataset_name)
    if has_dataset:
        _copy(dataset, to / found.dataset_name)
    if script.suffix == ".zip":
        return Program("", _unpack(script, to), has_dataset)
    _copy(script, to / script.name)
    files = () if not found.command and found.execution_mode != "mlflow" else (script.name,)
    return Program(script.name, files, has_dataset)


def _copy(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _unpack(archive: Path, to: Path) -> list[str]:
    """The names of the files in an archive, now in the folder. Raises Failure."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [each for each in opened.infolist() if not each.is_dir()]
            for each in members:
                if not _inside(each.filename) or stat.S_ISLNK(each.external_attr >> 16):
                    raise Failure(
                        f"{archive}: {each.filename} leads out of the archive",
                        "pack it again with plain files below one folder",
                    )
            if sum(each.file_size for each in members) > _LARGEST:
                raise Failure(f"{archive} unpacks to more than 1 GiB", "leave the data out of it")
            for each in members:
                opened.extract(each, to)
    except (zipfile.BadZipFile, OSError) as error:
        raise Failure(f"{archive} cannot be unpacked: {error}", "give a .py or a .zip") from None
    return sorted(each.filename for each in members)


def _check(documents: Sequence[Spec]) -> None:
    for document in documents:
        try:
            parse_resource(document)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise MltaskError(
                f"the {document['kind']} would not be valid: {where}: {fault['msg']}"
            ) from None


def _write(to: Path, document: Spec) -> None:
    metadata = document["metadata"]
    assert isinstance(metadata, dict), "made by windlass.mltask"
    path = to / f"{str(document['kind']).lower()}-{metadata['name']}.yaml"
    if path.exists() and not path.read_text(errors="replace").startswith(_MADE):
        raise Failure(f"{path} is not ours to replace", "move it away, or give another --to")
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    path.write_text(f"{_MADE}; edit it, or the configuration and import again.\n{text}")
