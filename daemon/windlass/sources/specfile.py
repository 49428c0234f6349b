"""One YAML file of a source: its documents, parsed and validated, and everything wrong with them.

Depends on the file's bytes and name alone, so that the loader keeps the result for as long as the
file does not change (hop 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue, ValidationError

from windlass.sources.document import FieldPath, YamlDocument, field_text, read_document
from windlass.sources.plain import show
from windlass.sources.text import MAX_DOCUMENTS, Piece, Place, split
from windlass.sources.wording import Wrong, explain_invalid
from windlass.store.base import Fault, Written
from windlass_schemas import (
    API_VERSION,
    DEFAULT_NAMESPACE,
    KINDS,
    Key,
    Reference,
    Resource,
    canonical_json,
    digest_of_dumped,
    dump_resource,
    key_of,
    parse_resource,
    references_of,
)

MAX_FILE = 16 << 20
"""Bytes in one YAML file."""

_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_KIND_LINE = re.compile(r"^kind:[ ]*[\"']?(\w+)", re.MULTILINE)
_METADATA = re.compile(r"^metadata:[ ]*\n((?:[ ]+.*\n?|[ ]*\n)+)", re.MULTILINE)
_NAME_LINE = re.compile(r"^[ ]+(name|namespace):[ ]*[\"']?([a-z0-9-]+)", re.MULTILINE)


@dataclass(frozen=True)
class Spec:
    """One valid document, before the files that it names are looked at."""

    written: Written
    path: str
    line: int
    references: tuple[Reference, ...]
    named: tuple[tuple[str, str], ...]
    """(field, path) of the files that it names."""
    text: str
    digest: str
    """Of its generation, if it names no files."""

    @property
    def key(self) -> Key:
        """The object that it declares."""
        return self.written.key

    @property
    def resource(self) -> Resource:
        """What it declares."""
        return self.written.resource

    def fault(self, field: str, message: str) -> Fault:
        """Something that is wrong with a field, seen from outside the document."""
        path = _parts(field)
        place = place_of_field(read_document(Piece(self.text.encode(), self.line)), path)
        return Fault(self.path, place.line, place.column, field, message, self.key)


@dataclass(frozen=True)
class SpecFile:
    """What one YAML file holds."""

    specs: tuple[Spec, ...]
    faults: tuple[Fault, ...]
    ours: bool
    """Whether any of its documents has an ``apiVersion`` or a ``kind``."""


def read_spec_file(data: bytes, path: str) -> SpecFile:
    """Read a whole file. Never raises: whatever is wrong is a fault."""
    if len(data) > MAX_FILE:
        return _refused(path, f"the file is larger than {MAX_FILE >> 20} MiB; split it")
    if not data.strip():
        return _refused(path, "the file is empty; write a document into it, or remove it")
    specs: list[Spec] = []
    faults: list[Fault] = []
    ours = False
    for i, piece in enumerate(split(data)):
        if i >= MAX_DOCUMENTS:
            return _refused(path, f"more than {MAX_DOCUMENTS} documents in one file; split it")
        document = read_document(piece)
        if document.empty:
            continue
        read = _read_spec(document, path, piece.line)
        specs += [read] if isinstance(read, Spec) else []
        faults += [] if isinstance(read, Spec) else read
        ours = ours or isinstance(read, Spec) or _is_ours(document)
    return SpecFile(tuple(specs), tuple(faults), ours)


def place_of_field(document: YamlDocument, path: FieldPath, *, at_key: bool = False) -> Place:
    """Where a field stands; the key of its parent, when the field itself is missing."""
    node, exact = document.root.at(path)
    return node.value if exact and not at_key else node.key if path else _first_line(document)


def _first_line(document: YamlDocument) -> Place:
    return document.root.value


def _refused(path: str, message: str) -> SpecFile:
    return SpecFile((), (Fault(path, 1, 1, "", message),), ours=True)


def _is_ours(document: YamlDocument) -> bool:
    value = document.value
    if isinstance(value, dict):
        return "apiVersion" in value or "kind" in value
    return False


def _read_spec(document: YamlDocument, path: str, line: int) -> Spec | list[Fault]:
    key = _key(document)
    found = [
        Fault(path, *fault.place, field_text(fault.path), fault.message, key)
        for fault in document.faults
    ]
    if document.complete:
        blamed = [fault.path for fault in document.faults]
        invalid = _validate(document.value)
        if not isinstance(invalid, list):
            if not found:
                return spec_of(invalid, path, line, document.text)
            return found
        for wrong in invalid:
            if wrong.at_key or not any(_covers(wrong.path, other) for other in blamed):
                place = place_of_field(document, wrong.path, at_key=wrong.at_key)
                found.append(Fault(path, *place, field_text(wrong.path), wrong.message, key))
    return sorted(found, key=lambda fault: (fault.line, fault.column))


def spec_of(resource: Resource, path: str, line: int, text: str) -> Spec:
    """The spec that a valid document is; ``text`` is what somebody wrote."""
    dumped = dump_resource(resource)
    return Spec(
        written=Written(key_of(resource), canonical_json(dumped), resource),
        path=path,
        line=line,
        references=references_of(resource),
        named=resource.spec.named_files(),
        text=text,
        digest=digest_of_dumped(dumped, {}),
    )


def _covers(path: FieldPath, blamed: FieldPath) -> bool:
    """Whether what is wrong at a path may come from what is blamed already, at it or inside."""
    return blamed[: len(path)] == path and bool(path)


def _validate(value: JsonValue) -> Resource | list[Wrong]:
    if not isinstance(value, dict):
        return [Wrong((), f"a document is a mapping; write apiVersion: {API_VERSION} first")]
    wrong = list(_head(value))
    if not _is_kind(value.get("kind")):
        return wrong
    try:
        resource = parse_resource(value)
    except ValidationError as error:
        told = {w.path for w in wrong}
        return wrong + [w for w in explain_invalid(error, value) if w.path not in told]
    except Exception as error:  # a validator's own fault must not stop the other documents
        return [Wrong((), f"cannot be checked ({error!r}); please report this document")]
    return list(_unknown_kinds(resource)) or resource


def _unknown_kinds(resource: Resource) -> Iterator[Wrong]:
    """Dependencies on kinds that do not exist would be waited for without end."""
    for i, dependency in enumerate(resource.policy.depends_on):
        if dependency.key.kind not in KINDS:
            kinds = ", ".join(KINDS)
            message = f'"{show(dependency.ref)}" names no kind; write one of {kinds} before the /'
            yield Wrong(("policy", "dependsOn", i, "ref"), message)


def _head(value: Mapping[str, JsonValue]) -> Iterator[Wrong]:
    """What is wrong with ``apiVersion`` and ``kind``."""
    if "apiVersion" not in value and "kind" not in value:
        yield Wrong(
            (),
            f"has neither apiVersion nor kind; write apiVersion: {API_VERSION} and a kind,"
            " or list the file in .windlassignore if it is no spec",
        )
        return
    kinds = ", ".join(KINDS)
    version, kind = value.get("apiVersion"), value.get("kind")
    if "apiVersion" not in value:
        yield Wrong(("apiVersion",), f"is missing; write apiVersion: {API_VERSION}", at_key=True)
    elif version != API_VERSION:
        other = "or list the file in .windlassignore"
        yield Wrong(("apiVersion",), f"{_said(version)} is not known; write {API_VERSION}, {other}")
    if "kind" not in value:
        yield Wrong(("kind",), f"is missing; write one of: {kinds}", at_key=True)
    elif not _is_kind(kind):
        yield Wrong(("kind",), f"{_said(kind)} is no kind; write one of: {kinds}")


def _is_kind(value: JsonValue) -> bool:
    return isinstance(value, str) and value in KINDS


def _said(value: JsonValue) -> str:
    return f'"{show(value)}"' if isinstance(value, str) else "what stands here"


def _key(document: YamlDocument) -> Key | None:
    """The object that a document speaks of, also when the rest of it is broken."""
    value = document.value
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if isinstance(value, dict) and isinstance(metadata, dict) and "name" in metadata:
        kind, name = value.get("kind"), metadata["name"]
        namespace = metadata.get("namespace", DEFAULT_NAMESPACE)
    elif document.complete:
        return None
    else:
        kind, namespace, name = _guess(document.text)
    if not isinstance(kind, str) or kind not in KINDS:
        return None
    try:
        return Key.parse(f"{kind}/{namespace}/{name}")
    except ValueError:
        return None


def _guess(text: str) -> tuple[str, str, str]:
    """Kind, namespace and name from the lines of a text that is no YAML."""
    kind, metadata = _KIND_LINE.search(text), _METADATA.search(text)
    names = dict(_NAME_LINE.findall(metadata.group(1))) if metadata else {}
    return (
        kind.group(1) if kind else "",
        names.get("namespace", DEFAULT_NAMESPACE),
        names.get("name", ""),
    )


def _parts(field: str) -> FieldPath:
    return tuple(int(index) if index else name for name, index in _PART.findall(field))
