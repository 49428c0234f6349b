"""One YAML document, strictly: JSON values only, each with its line and column (hop 1).

Works on libyaml's events with a stack of its own, so that neither aliases nor depth can blow up:
an alias is refused where it stands and a document is left at the 101st level.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml
from pydantic import JsonValue

from windlass.sources.plain import read_plain, show
from windlass.sources.syntax import explain
from windlass.sources.text import Piece, Place, decode, place_of

_TAB = re.compile(r"^[^#\t\n]*\t", re.MULTILINE)

MAX_LEVELS = 100
MAX_KEY = 256
MAX_FAULTS = 100
"""Faults told of one document."""

FieldPath = tuple[str | int, ...]
Items = dict[str, JsonValue] | list[JsonValue]


def field_text(path: FieldPath) -> str:
    """``spec.files[0]``: how a field is named in messages."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


@dataclass(slots=True)
class Node:
    """Where a value and its key stand."""

    key: Place
    value: Place
    children: dict[str | int, Node] = field(default_factory=dict)

    def at(self, path: FieldPath) -> tuple[Node, bool]:
        """The node at a path, or the deepest one on the way to it, and whether it is the one."""
        node = self
        for part in path:
            if part not in node.children:
                return node, False
            node = node.children[part]
        return node, True


@dataclass(frozen=True)
class YamlFault:
    """One thing wrong with a document as YAML."""

    place: Place
    path: FieldPath
    message: str


@dataclass(frozen=True)
class YamlDocument:
    """What one document says, as far as it can be read."""

    value: JsonValue
    root: Node
    faults: tuple[YamlFault, ...]
    complete: bool
    """False when reading stopped at a fault: what follows it is unknown."""
    empty: bool
    """Nothing but comments."""
    text: str


def read_document(piece: Piece) -> YamlDocument:
    """Read one document and collect everything that is wrong with it. Never raises."""
    text, complaints = decode(piece)
    walk = _Walk(text, piece.line)
    for place, message in complaints:
        walk.blame(place, message)
    if not complaints:
        walk.run()
    return YamlDocument(
        value=walk.value,
        root=walk.root,
        faults=walk.faults(),
        complete=walk.complete,
        empty=walk.empty and not walk.found,
        text=text,
    )


class _Frame:
    """A mapping or a list that is being read."""

    __slots__ = ("awaits_key", "drops", "is_key", "items", "key_place", "last", "node")

    def __init__(self, items: Items, node: Node, *, is_key: bool = False) -> None:
        self.items = items
        self.node = node
        self.is_key = is_key
        """Whether this whole collection stands where a key must stand."""
        self.awaits_key = isinstance(items, dict)
        self.last: str | int = 0
        """Key or index that was read last."""
        self.drops = False
        """Whether the key was refused, so that its value has no place."""
        self.key_place = node.value


class _Walk:
    """Reads the events of one document."""

    def __init__(self, text: str, first_line: int) -> None:
        self.value: JsonValue = None
        self.root = Node(Place(first_line, 1), Place(first_line, 1))
        self.found: list[YamlFault] = []
        self.complete = False
        self.empty = True
        self._text = text
        self._first_line = first_line
        self._stack: list[_Frame] = []
        self._dropped = 0
        self._scalars: list[tuple[int, int]] = []
        self._has_tabs = "\t" in text

    def run(self) -> None:
        try:
            for event in yaml.parse(self._text, Loader=yaml.CSafeLoader):
                if not self._take(event):
                    return
            self.complete = True
        except yaml.YAMLError as error:
            self.empty = False
            place, message = explain(error, self._text, self._first_line)
            pending = bool(self._stack) and not self._stack[-1].awaits_key
            mapping = pending and isinstance(self._stack[-1].items, dict)
            self.blame(place, message, self._last_path() if mapping else self._path())
        if self._has_tabs:
            self._refuse_tabs()

    def faults(self) -> tuple[YamlFault, ...]:
        found = sorted(self.found, key=lambda fault: fault.place)
        if self._dropped:
            more = f"{self._dropped} more faults in this document; mend the ones above first"
            found.append(YamlFault(found[-1].place, (), more))
        return tuple(found)

    def blame(self, place: Place, message: str, path: FieldPath = ()) -> None:
        if len(self.found) < MAX_FAULTS:
            self.found.append(YamlFault(place, path, message))
        else:
            self._dropped += 1

    def _take(self, event: yaml.Event) -> bool:
        """Read one event; False when the rest must not be read."""
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            return self._start(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            frame = self._stack.pop()
            if frame.is_key:
                self._stack[-1].awaits_key, self._stack[-1].drops = False, True
        elif isinstance(event, yaml.AliasEvent):
            place = self._place(event)
            message = f"the alias *{show(event.anchor or '')}; write the value out here"
            if self._awaits_key():
                self._set_key("", place, message)
            else:
                self._put(None, place)
                self.blame(place, message, self._last_path())
        return True

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        place = self._place(event)
        if self._has_tabs and event.start_mark and event.end_mark:
            self._scalars.append((event.start_mark.index, event.end_mark.index))
        plain = not event.style
        value, complaint = read_plain(event.value) if plain else (event.value, "")
        if not self._stack and plain and event.value == "":
            pass  # a marker with nothing but comments behind it
        elif self._awaits_key():
            self._set_key(event.value, place, self._key_complaint(event, value, complaint))
        else:
            self._put(value, place)
            if complaint:
                self.blame(place, complaint, self._last_path())
        self._refuse_properties(event, place)
        if "\0" in event.value:
            self.blame(place, 'the character "\\0"; remove it', self._last_path())

    def _key_complaint(self, event: yaml.ScalarEvent, value: object, complaint: str) -> str:
        text = show(event.value)
        if not event.style and event.value == "<<":
            return "a merge key (<<); write the values out here"
        if len(event.value) > MAX_KEY:
            return f"a key of more than {MAX_KEY} characters; write a shorter one"
        if complaint:
            return complaint
        if value is None:
            return "a key that is empty or null; write a name, in quotes if it must be this one"
        if not isinstance(value, str):
            return f'the key {text} is no text; write "{text}" in quotes'
        return ""

    def _set_key(self, key: str, place: Place, complaint: str) -> None:
        frame = self._stack[-1]
        frame.last, frame.key_place, frame.awaits_key = key[:MAX_KEY], place, False
        if not complaint and key in frame.node.children:
            first = frame.node.children[key].key
            complaint = f'the key "{show(key)}" is here twice, first in line {first.line}; keep one'
        frame.drops = bool(complaint)
        if complaint:
            self.blame(place, complaint, self._last_path())

    def _start(self, event: yaml.CollectionStartEvent) -> bool:
        place = self._place(event)
        if len(self._stack) >= MAX_LEVELS:
            self.blame(place, f"more than {MAX_LEVELS} levels deep; write it flatter", ())
            self.empty = False
            return False
        items: Items = {} if isinstance(event, yaml.MappingStartEvent) else []
        if self._awaits_key():
            self.blame(place, "a mapping or list as a key; write a text key", self._path())
            frame = _Frame(items, Node(place, place), is_key=True)
        else:
            frame = _Frame(items, self._put(items, place))
        self._refuse_properties(event, place)
        self._stack.append(frame)
        return True

    def _put(self, value: JsonValue, place: Place) -> Node:
        """Hang a value into what is being read."""
        self.empty = False
        if not self._stack:
            self.value = value
            self.root.value = place
            return self.root
        frame = self._stack[-1]
        if isinstance(frame.items, list):
            frame.last = len(frame.items)
            frame.items.append(value)
            node = frame.node.children[frame.last] = Node(place, place)
            return node
        node = Node(frame.key_place, place)
        frame.awaits_key = True
        if not frame.drops:
            frame.items[str(frame.last)] = value
            frame.node.children[frame.last] = node
        return node

    def _awaits_key(self) -> bool:
        return bool(self._stack) and self._stack[-1].awaits_key

    def _path(self) -> FieldPath:
        """The path of the collection that is being read."""
        return tuple(frame.last for frame in self._stack[:-1])

    def _last_path(self) -> FieldPath:
        """The path of what was read last."""
        return tuple(frame.last for frame in self._stack)

    def _refuse_properties(
        self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, place: Place
    ) -> None:
        if event.anchor is not None:
            name = show(event.anchor)
            message = f"the anchor &{name}; remove it, and write the value out where it is used"
            self.blame(place, message, self._last_path())
        if event.tag is not None:
            tag = show(event.tag.replace("tag:yaml.org,2002:", "!!"))
            message = f"the tag {tag}; remove it, and put the value in quotes if it is text"
            self.blame(place, message, self._last_path())

    def _refuse_tabs(self) -> None:
        """A tab belongs into text or a comment; as white space it looks like what it is not."""
        told, start = {fault.place for fault in self.found}, 0
        for begin, end in [*self._scalars, (len(self._text), len(self._text))]:
            for found in _TAB.finditer(self._text[start:begin]):
                if len(self.found) >= MAX_FAULTS:
                    return
                place = place_of(self._text, start + found.end() - 1, self._first_line)
                if place not in told:
                    self.blame(place, "a tab between values; write spaces")
            start = max(start, end)

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        if mark is None:  # libyaml marks every event; its stubs do not know
            return self.root.key
        return Place(self._first_line + mark.line, mark.column + 1)
