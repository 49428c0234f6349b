"""The pages agree with the code: examples are valid, catalogues complete, links lead somewhere."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from windlass_schemas import (
    KINDS,
    DeploymentSpec,
    JobSpec,
    ModelSpec,
    Policy,
    Reason,
    SweepSpec,
    TargetSpec,
    parse_resource,
    reasons,
)

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


SPECS: dict[str, type[BaseModel]] = {
    "Target": TargetSpec,
    "Model": ModelSpec,
    "Deployment": DeploymentSpec,
    "Job": JobSpec,
    "Sweep": SweepSpec,
}


def blocks() -> list[tuple[str, str]]:
    """Every YAML block, with where it stands."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match.group(1)))
    return found


@pytest.mark.parametrize(("place", "text"), blocks(), ids=[place for place, _ in blocks()])
def test_each_yaml_block_is_a_valid_spec(place: str, text: str) -> None:
    """What a reader copies is accepted as it stands."""
    for document in yaml.safe_load_all(text):
        parse_resource(document)


def test_each_kind_has_a_page_with_a_heading_for_each_field() -> None:
    """A new field without a word about it does not pass."""
    assert set(SPECS) == set(KINDS)
    models: dict[str, type[BaseModel]] = {**SPECS, "Policy": Policy}
    for name, model in models.items():
        text = (ROOT / f"docs/kinds/{name.lower()}.md").read_text()
        fields = {info.alias for info in model.model_fields.values()}
        headings = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
        assert headings == fields, name


def told_reasons() -> dict[str, str]:
    """Each reason of the catalogue with its docstring, in the words of Markdown."""
    tree = ast.parse(Path(reasons.__file__).read_text())
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef))
    told = {}
    for name, text in pairwise(body):
        if isinstance(name, ast.Assign) and isinstance(text, ast.Expr):
            words = " ".join(ast.literal_eval(text.value).split())
            told[ast.literal_eval(name.value)] = words.replace("``", "`")
    return told


def test_the_page_of_conditions_lists_each_reason_in_the_words_of_the_catalogue() -> None:
    """docs/conditions.md and windlass_schemas/reasons.py say the same, in the same order."""
    page = (ROOT / "docs/conditions.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE))
    assert list(rows.items()) == list(told_reasons().items())
    assert set(rows) == {reason.value for reason in Reason}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_each_link_inside_the_project_leads_to_a_file(page: Path) -> None:
    """Moved pages take their links along."""
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_each_reason_is_produced_and_asserted_by_a_test() -> None:
    """No word of the catalogue that nobody has seen: source uses it, and a test names it."""
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for reason in Reason:
        named = re.search(rf"Reason\.{reason.name}\b|[\"']{reason.value}[\"']", tests)
        assert named, f"no test names {reason.value}"
