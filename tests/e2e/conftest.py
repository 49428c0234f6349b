"""Projects for the end-to-end tests. Each one is closed, and its processes stopped, at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.project import Project

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Project]:
    """A project whose training takes no time: a Job, a Model and a Deployment ``stub``."""
    project = Project(tmp_path, ROOT / "tests/data/stub")
    yield project
    project.close()


@pytest.fixture
def quickstart(tmp_path: Path) -> Iterator[Project]:
    """A project that is a copy of specs/quickstart."""
    project = Project(tmp_path, ROOT / "specs/quickstart")
    yield project
    project.close()
