"""``windlass import mltask``: the JSON of an older submitter becomes specs that mean the same."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from pydantic import JsonValue

from rig.command_line import windlass

DATA = Path(__file__).parents[1] / "data" / "mltask"
WHERE = ("--cluster", "atena02=ada@login.example.org:2222/scratch/ada/windlass")


async def _import(
    folder: Path, config: Path, *flags: str, script: Path | None = None, code: int = 0
) -> str:
    """Run the command; what it said."""
    if script is None:
        script = folder / "train.py"
        script.write_text("print('hello')\n")
    ran = await windlass(
        "import", "mltask", str(config), str(script), "--to", str(folder / "specs"), *flags
    )
    assert ran.code == code, ran
    return ran.out + ran.err


def _spec(folder: Path, name: str) -> Mapping[str, JsonValue]:
    spec: Mapping[str, JsonValue] = yaml.safe_load((folder / "specs" / name).read_text())["spec"]
    return spec


async def _valid(folder: Path) -> str:
    ran = await windlass("validate", str(folder / "specs"))
    return ran.out + ran.err


async def test_the_smallest_configuration_becomes_a_target_and_a_job(tmp_path: Path) -> None:
    """Partition, account, image, parameters and tracking; the documents are valid."""
    await _import(tmp_path, DATA / "minimal.json", *WHERE, "--images", "/opt/sif")
    job = _spec(tmp_path, "job-atena-test.yaml")
    assert job == {
        "entrypoint": "train.py",
        "params": {
            "input_path": "wine_classification",
            "output_path": ".",
            "n_estimators": 2,
            "random_state": 42,
        },
        "target": "atena02",
        "image": "/opt/sif/sklearn_sample_latest.sif",
        "env": {"MLFLOW_TRACKING_URI": "experiments", "MLFLOW_EXPERIMENT_NAME": "atena_test"},
        "options": {
            "nodes": 1,
            "ntasks": 1,
            "exclusive": True,
            "partition": "cpu",
            "account": "twinscie",
            "container": {"nv": True},
        },
        "onChange": "replace",
    }
    assert _spec(tmp_path, "target-atena02.yaml")["params"] == {
        "host": "login.example.org",
        "port": 2222,
        "user": "ada",
        "remoteRoot": "/scratch/ada/windlass",
    }
    assert "2 valid documents, no faults" in await _valid(tmp_path)


async def test_another_runner_location_changes_the_same_job(tmp_path: Path) -> None:
    """Partition, image and Target change together; nothing of the old place stays behind."""
    config = json.loads((DATA / "several.json").read_text())
    path = tmp_path / "task.json"
    (tmp_path / "wine.csv").write_text("a,b\n1,2\n")
    for location, partition in (("dev", "slurmpar"), ("atena02", "cpu")):
        path.write_text(json.dumps({**config, "runner_location": location}))
        said = await _import(tmp_path, path, "--images", "/opt/sif")
        assert f"Target/{location} is yours to declare" in said
        job = _spec(tmp_path, "job-wine-on-several.yaml")
        options = job["options"]
        assert isinstance(options, dict)
        assert (job["target"], options["partition"]) == (location, partition)
        assert job["files"] == ["wine.csv"]
    assert sorted(p.name for p in (tmp_path / "specs").iterdir()) == [
        "job-wine-on-several.yaml",
        "train.py",
        "wine.csv",
    ]


async def test_an_mlflow_task_runs_mlflow_with_the_server_that_it_names(tmp_path: Path) -> None:
    """The tracking address is the declared one, as a variable."""
    await _import(tmp_path, DATA / "mlflow.json", *WHERE)
    job = _spec(tmp_path, "job-adult.yaml")
    assert job["command"] == ["mlflow", "run", "--experiment-name", "adult", "projects/adult"]
    assert job["env"] == {
        "MLFLOW_TRACKING_URI": "http://server:5000/",
        "MLFLOW_EXPERIMENT_NAME": "adult",
    }


async def test_a_command_with_an_archive_brings_its_files(tmp_path: Path) -> None:
    """The words of the command are arguments: no shell reads them."""
    archive = tmp_path / "project.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("files/test.py", "print(1)\n")
    await _import(tmp_path, DATA / "command.json", *WHERE, "--images", "/i", script=archive)
    job = _spec(tmp_path, "job-from-an-archive.yaml")
    assert job["command"] == ["python3", "files/test.py"]
    assert job["files"] == ["files/test.py"]
    assert "2 valid documents, no faults" in await _valid(tmp_path)


async def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    """Nothing is written outside."""
    archive = tmp_path / "project.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("../evil.py", "print(1)\n")
    said = await _import(tmp_path, DATA / "command.json", script=archive, code=1)
    assert "leads out of the archive" in said
    assert not (tmp_path / "evil.py").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"runner_location": "azure"}, "azure is none of the clusters"),
        ({"runner_location": "aws"}, "an account at SageMaker"),
        ({"experiment_name": "///"}, "neither a letter nor a digit"),
        ({"clusters": {}}, "clusters"),
        ({"model_params": {"a b": 1}}, "params"),
    ],
)
async def test_a_configuration_that_cannot_be_meant_is_refused_in_words(
    tmp_path: Path, change: Mapping[str, JsonValue], words: str
) -> None:
    """With the file, the field and what is wrong; nothing is written."""
    config = json.loads((DATA / "several.json").read_text())
    (tmp_path / "task.json").write_text(json.dumps({**config, **change}))
    said = await _import(tmp_path, tmp_path / "task.json", code=1)
    assert words in said
    assert not list((tmp_path).glob("specs/*.yaml"))


async def test_code_in_a_name_stays_a_name(tmp_path: Path) -> None:
    """What was a hole in a shell script is a plain value here."""
    config = json.loads((DATA / "minimal.json").read_text())
    evil = "x\n#SBATCH --wrap=id; $(touch /tmp/evil) 'q\" "
    (tmp_path / "task.json").write_text(json.dumps({**config, "dataset_name": evil}))
    await _import(tmp_path, tmp_path / "task.json", "--datasets", "/data")
    params = _spec(tmp_path, "job-atena-test.yaml")["params"]
    assert isinstance(params, dict)
    assert params["input_path"] == f"/data/{evil}"


async def test_a_file_that_somebody_else_has_written_is_not_replaced(tmp_path: Path) -> None:
    """Only what this command has made."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/job-atena-test.yaml").write_text("mine\n")
    assert "is not ours to replace" in await _import(tmp_path, DATA / "minimal.json", code=1)
