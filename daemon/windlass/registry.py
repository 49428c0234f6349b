"""Adapters by name, from the entry points ``windlass.adapters``. A broken one stops only itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from windlass_adapters.base import Adapter, TerminalError
from windlass_schemas import Reason

GROUP = "windlass.adapters"


class Registry:
    """What adapters are installed. Loads each one at its first use."""

    def __init__(self, adapters: Mapping[str, type[Adapter]] | None = None) -> None:
        """``adapters`` replaces the installed ones, for tests and embedding."""
        self._given = adapters
        self._loaded: dict[str, type[Adapter]] = dict(adapters or {})
        self.broken: dict[str, str] = {}
        """Plug-ins that cannot be imported, and why."""

    def names(self) -> tuple[str, ...]:
        """The names that ``Target.spec.adapter`` may have."""
        if self._given is not None:
            return tuple(sorted(self._given))
        return tuple(sorted(point.name for point in entry_points(group=GROUP)))

    def get(self, name: str) -> type[Adapter]:
        """The adapter of that name. Raises TerminalError that says which there are."""
        if name in self._loaded:
            return self._loaded[name]
        for point in entry_points(group=GROUP) if self._given is None else ():
            if point.name == name:
                return self._load(name, point.load)
        raise TerminalError(
            f"there is no adapter {name!r}; installed: {', '.join(self.names()) or 'none'}",
            reason=Reason.ADAPTER_NOT_FOUND,
        )

    def code(self) -> str:
        """Digest of the code of all that are installed: other code may check otherwise."""
        names = {kind.__module__ for kind in (self._given or {}).values()}
        if self._given is None:
            names = {point.module for point in entry_points(group=GROUP)}
        hasher = hashlib.sha256()
        for package in sorted({name.partition(".")[0] for name in names}):
            for file in _files(package):
                hasher.update(file.read_bytes())
        return hasher.hexdigest()

    def _load(self, name: str, load: object) -> type[Adapter]:
        assert callable(load)
        try:
            loaded: type[Adapter] = load()
        except Exception as error:
            self.broken[name] = str(error) or type(error).__name__
            raise TerminalError(
                f"the adapter {name!r} cannot be loaded ({self.broken[name]}); reinstall it",
                reason=Reason.ADAPTER_NOT_FOUND,
            ) from error
        self._loaded[name] = loaded
        return loaded


def _files(package: str) -> Iterable[Path]:
    """The Python files of a package, or of a module that is one file."""
    try:
        found = find_spec(package)
    except ValueError:  # a module that was not imported from anywhere
        found = None
    if found is None:
        return []
    folders = found.submodule_search_locations
    if folders is None:
        return [Path(found.origin)] if found.origin and Path(found.origin).is_file() else []
    return sorted(file for folder in folders for file in Path(folder).rglob("*.py"))


def check_fields(model: type[BaseModel], values: Mapping[str, JsonValue], field: str) -> BaseModel:
    """Read an adapter's own fields. Raises TerminalError(INVALID_SPEC) that names each fault."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = [
            f"{field}.{'.'.join(str(part) for part in fault['loc'])}:"
            f" {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        ]
        raise TerminalError("; ".join(faults), reason=Reason.INVALID_SPEC) from None
