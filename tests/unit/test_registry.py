"""What the code of adapters is known by."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from windlass.registry import Registry
from windlass_adapters.testing import MemoryAdapter


def test_the_digest_of_the_code_follows_every_file_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "adapter_of_somebody"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "checks.py").write_text("LEAST = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(package.name)
    kind = type("Theirs", (MemoryAdapter,), {"__module__": package.name})
    first = Registry({"theirs": kind}).code()
    assert Registry({"theirs": kind}).code() == first
    (package / "inner" / "checks.py").write_text("LEAST = 2\n")
    assert Registry({"theirs": kind}).code() != first
    monkeypatch.delitem(sys.modules, package.name)


def test_what_is_installed_has_code_and_what_has_no_file_is_no_fault() -> None:
    nowhere = type("Nowhere", (MemoryAdapter,), {"__module__": "made.up"})
    assert Registry().code() != Registry({"nowhere": nowhere}).code()
