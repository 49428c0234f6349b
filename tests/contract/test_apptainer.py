"""The program that runs containers in these tests does what the real Apptainer was seen to do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.apptainer.install import double, real
from rig.slurm import Cluster, cluster

REFUSED = {
    *("inspect-json-labels", "verify-unsigned", "env-file-comment-quotes-export"),
    *("env-file-expansion", "env-file-unquoted-space", "env-file-parenthesis", "env-file-no-eval"),
    *("mount-flag-ro", "scratch-workdir", "writable-sandbox", "writable-and-writable-tmpfs"),
    "overlay-directory",
}
"""Cases of nothing that Windlass uses, which the double cannot answer and says so."""
PAGE = Path(__file__).parents[2] / "docs" / "adapters" / "slurm.md"
DATA = Path(__file__).parents[1] / "data" / "apptainer"


@pytest.fixture(scope="module")
def site() -> Iterator[Cluster]:
    """A machine with an ordinary user, whose home is not below /tmp."""
    with cluster() as running:
        yield running


@pytest.fixture(scope="module")
def corpus(site: Cluster) -> tuple[str, ...]:
    """The command line that runs the corpus, without the programs' folder and what follows it."""
    shutil.copytree(DATA, site.layout.folder / "corpus")
    code = site.layout.folder / "corpus-code"
    code.mkdir()
    double(code)
    run = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    run += "runpy.run_module('rig.apptainer.corpus', run_name='__main__')"
    return ("/usr/bin/python3", "-sE", "-c", run, str(code / "code"))


def _run(site: Cluster, corpus: tuple[str, ...], programs: Path, *tier: str) -> str:
    places = [str(programs), str(site.layout.folder / "corpus"), str(site.login.root)]
    return site.run(*corpus, *places, *tier, check=False, timeout=110)


@pytest.mark.parametrize(
    ("tier", "cases"), [("core", 87), pytest.param("more", 96, marks=pytest.mark.long)]
)
def test_the_double_answers_as_the_real_program_or_refuses(
    site: Cluster, corpus: tuple[str, ...], tier: str, cases: int
) -> None:
    """No recorded case differs; none of the core is refused, of the others those that we say."""
    said = _run(site, corpus, site.layout.folder / "corpus-code" / "bin", tier)
    found = re.search(r"(\d+) run, (\d+) failed, (\d+) refused", said)
    assert found, said
    ran, failed, refused = map(int, found.groups())
    assert (ran, failed) == (cases, 0), said
    named = set(re.findall(r"^refused (\S+)$", said, re.MULTILINE))
    assert (named, len(named)) == (set() if tier == "core" else REFUSED, refused), said


def test_what_the_double_refuses_is_on_the_page() -> None:
    """Whoever reads what the tests show must see what they leave out."""
    text = PAGE.read_text()
    assert [name for name in sorted(REFUSED) if f"`{name}`" not in text] == []


def test_what_the_other_tests_use_is_the_real_program_where_there_is_one(
    site: Cluster, corpus: tuple[str, ...]
) -> None:
    """The double stands in for a missing program, and never for one that is there."""
    there = real()
    if there is None:
        assert site.containers == site.layout.folder / "containers" / "bin"
        assert {path.name for path in site.containers.iterdir()} == {"apptainer", "singularity"}
    else:
        assert site.containers == there
        assert " 0 failed" in _run(site, corpus, there)
