"""Adapters by name, from the entry points ``windlass.adapters``. A broken one stops only itself."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

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
