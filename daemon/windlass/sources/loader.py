"""The loader: a tree at one revision becomes the documents and faults of a snapshot (hop 1).

Remembers what it has read by the identity of each file, so that a commit that touches one file
parses one file. Blocking: sources call it in a thread, one call at a time.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter

from windlass.sources.cycles import find_cycles
from windlass.sources.ignore import IGNORE_FILE, Ignore
from windlass.sources.namedfiles import Keep, NamedFiles
from windlass.sources.readcache import NOTHING, Kept, Read, ReadCache
from windlass.sources.specfile import MAX_FILE, Spec, read_spec_file
from windlass.sources.tree import (
    ODD_NAME,
    Entry,
    EntryKind,
    Tree,
    UnreadableError,
    is_odd_name,
    readable_name,
)
from windlass.store.base import Document, Fault
from windlass_schemas import Artifact, Key, Reference, Resource, digest_of, digest_of_resource

SUFFIXES = (".yaml", ".yml")

Lookup = Callable[[Key], Resource | None]
"""The resource of a key in the same set, if there is one."""
Check = Callable[[Resource, Lookup], Iterable[tuple[str, str]]]
"""(field, what is wrong and what to write instead): more checks on a valid resource.

What it finds depends on the resource and the Targets of the set alone.
"""


def no_check(_resource: Resource, _lookup: Lookup) -> Iterable[tuple[str, str]]:
    """Finds nothing."""
    return ()


@dataclass(frozen=True)
class Survey:
    """Everything that a load depends on, without its content. Equal surveys, equal sets."""

    entries: tuple[Entry, ...]
    """YAML files and ``.windlassignore``, in the order of their paths."""
    named: tuple[Entry, ...]
    """Files that the specs named at the last load."""
    folders: frozenset[str]
    """Where all these lie: worth watching."""

    @property
    def settled(self) -> bool:
        """Whether a file that changes from now on is sure to change the survey."""
        return all(entry.settled for entry in self.entries + self.named)

    def same_as(self, other: Survey) -> bool:
        """Whether nothing moved between two surveys; age alone is no movement."""
        return self._identities() == other._identities()

    def _identities(self) -> list[tuple[str, EntryKind, str]]:
        return [(entry.path, entry.kind, entry.identity) for entry in self.entries + self.named]


@dataclass(frozen=True)
class Loaded:
    """What a tree declares."""

    documents: tuple[Document, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    contents: Mapping[str, str]
    """Digests of all files that were read, by path."""

    @cached_property
    def digest(self) -> str:
        """Of the content of all files that were read."""
        hasher = hashlib.sha256()
        for path in sorted(self.contents):
            text = f"{path}\0{self.contents[path]}\0"
            hasher.update(text.encode(errors="surrogateescape"))
        return hasher.hexdigest()


class Loader:
    """Reads the specs of one source.

    ``keep`` stores a named file and gives its identity; ``only`` restricts the specs to one file;
    ``cache`` keeps what was read over a restart.
    """

    def __init__(
        self,
        keep: Keep,
        check: Check = no_check,
        only: str | None = None,
        cache: ReadCache | None = None,
    ) -> None:
        self.parses = 0
        """YAML files parsed so far: what the memory saves can be counted."""
        self._named = NamedFiles(keep)
        self._check = check
        self._only = only
        self._ignore = Ignore()
        self._cache = cache or ReadCache(None)
        self._memory: Mapping[str, Read] | None = None
        """What was read, by path; None before the first load."""
        self._kept = NOTHING
        """What of it the cache has."""
        self._documents: dict[Key, tuple[Spec, Document]] = {}
        self._passed: Mapping[Key, Spec] = {}
        """What the last load found nothing wrong with."""
        self._targets = ""
        """Digest of the Targets that it was checked with."""
        self._acyclic: Mapping[Key, tuple[Reference, ...]] = {}
        """References between which the last load found no circle."""

    def survey(self, tree: Tree) -> Survey:
        """What a load would read. Raises SourceUnavailableError when the tree is gone."""
        ignore = self._read_ignore(tree)
        folders = {""}

        def enter(folder: str) -> bool:
            if isinstance(ignore, Fault) or not ignore.enters(folder):
                return False
            folders.add(folder)
            return True

        entries = [] if isinstance(ignore, Fault) else list(self._specs(tree, ignore, enter))
        marker = tree.find(IGNORE_FILE)
        if marker is not None and self._only is None:
            entries.append(marker)
        entries.sort(key=attrgetter("path"))
        named = tuple(self._named.survey(tree))
        folders.update(entry.path.rpartition("/")[0] for entry in named)
        return Survey(tuple(entries), named, frozenset(folders))

    def load(self, tree: Tree, survey: Survey | None = None) -> Loaded:
        """Read the whole set.

        Raises SourceUnavailableError, also when files cannot be kept, and TreeChangedError when a
        file moved between the survey and the read.
        """
        survey = survey or self.survey(tree)
        if self._memory is None:
            self._recall()
        assert self._memory is not None
        ignore = self._read_ignore(tree)
        reads, faults, notes = self._read_all(tree, survey, self._memory)
        specs = [spec for read in reads.values() for spec in read.file.specs]
        specs, more = _without_duplicates(specs)
        resolved, unresolved = self._named.resolve(tree, specs)
        documents = [(spec, self._document(spec, files)) for spec, files in resolved]
        more += unresolved
        documents, cyclic = self._without_cycles(documents)
        more += cyclic
        documents, refused = self._checked(documents)
        more += refused
        named = self._named.paths
        for read in reads.values():
            if read.file.ours or read.entry.path not in named:
                faults += read.file.faults
        faults += more + ([ignore] if isinstance(ignore, Fault) else [])
        self._memory = reads
        self._documents = {pair[0].key: pair for pair in documents}
        return Loaded(
            documents=tuple(document for _, document in documents),
            faults=tuple(sorted(faults, key=lambda f: (f.path, f.line, f.column, f.field))),
            notes=tuple(notes),
            contents={path: read.content for path, read in reads.items()} | named,
        )

    def remember(self) -> None:
        """Keep what was read over a restart. It takes its time, and nobody has to wait for it."""
        if self._memory is not None:
            doubtful = frozenset(
                path
                for path, read in self._memory.items()
                if any(self._passed.get(spec.key) is not spec for spec in read.file.specs)
            )
            now = Kept(self._memory, self._targets, doubtful if self._targets else frozenset())
            self._cache.save(self._kept, now)
            self._kept = now

    def _recall(self) -> None:
        """Take up what was read, and found to be good, before a restart."""
        self._kept = self._cache.load()
        self._memory = self._kept.reads
        self._targets = self._kept.targets
        self._passed = {
            spec.key: spec
            for path, read in self._memory.items()
            if path not in self._kept.doubtful
            for spec in read.file.specs
        }

    def _read_ignore(self, tree: Tree) -> Ignore | Fault:
        entry = tree.find(IGNORE_FILE)
        if self._only is not None or entry is None:
            text = ""
        else:
            try:
                if entry.kind is not EntryKind.FILE:
                    raise UnreadableError(_not_a_file(entry))  # noqa: TRY301
                with tree.open(entry) as stream:
                    text = stream.read(MAX_FILE).decode()
            except (UnreadableError, UnicodeDecodeError) as error:
                why = "is not UTF-8; save it as UTF-8"
                message = str(error) if isinstance(error, UnreadableError) else why
                return Fault(IGNORE_FILE, 1, 1, "", message)
        if text != self._ignore.text:
            try:
                self._ignore = Ignore(text)
            except ValueError as error:
                message = f"holds a pattern that cannot be read ({error}); mend or remove it"
                return Fault(IGNORE_FILE, 1, 1, "", message)
        return self._ignore

    def _specs(self, tree: Tree, ignore: Ignore, enter: Callable[[str], bool]) -> Iterator[Entry]:
        if self._only is not None:
            entry = tree.find(self._only)
            yield from () if entry is None else (entry,)
            return
        for entry in tree.walk(enter):
            folder_like = entry.kind not in (EntryKind.FILE, EntryKind.SPECIAL)
            if (folder_like or entry.path.endswith(SUFFIXES)) and ignore.takes(entry.path):
                yield entry

    def _read_all(
        self, tree: Tree, survey: Survey, before: Mapping[str, Read]
    ) -> tuple[dict[str, Read], list[Fault], list[str]]:
        reads: dict[str, Read] = {}
        faults: list[Fault] = []
        notes: list[str] = []
        unknown: list[Entry] = []
        for entry in survey.entries:
            known = before.get(entry.path)
            if known is None or not _is_same(known.entry, entry):
                unknown.append(entry)
            else:
                reads[entry.path] = known
        tree.expect([entry for entry in unknown if _is_readable(entry)])
        for entry in unknown:
            if is_odd_name(entry.path):
                faults.append(Fault(readable_name(entry.path), 1, 1, "", f"a file {ODD_NAME}"))
            elif _is_readable(entry):
                try:
                    reads[entry.path] = self._read(tree, entry, before.get(entry.path))
                except UnreadableError as error:
                    faults.append(Fault(entry.path, 1, 1, "", str(error)))
            elif entry.path.endswith(SUFFIXES) or entry.kind is EntryKind.UNREADABLE:
                faults.append(Fault(entry.path, 1, 1, "", _not_a_file(entry)))
            elif entry.kind in (EntryKind.SYMLINK, EntryKind.SUBMODULE):
                notes.append(f"{entry.path} is {entry.kind}; no specs are read from behind it")
        return {e.path: reads[e.path] for e in survey.entries if e.path in reads}, faults, notes

    def _read(self, tree: Tree, entry: Entry, known: Read | None) -> Read:
        with tree.open(entry) as stream:
            data = stream.read(MAX_FILE + 1)
        content = "sha256:" + hashlib.sha256(data).hexdigest()
        if known is not None and known.content == content:
            return replace(known, entry=entry)
        self.parses += 1
        return Read(entry, content, read_spec_file(data, entry.path))

    def _document(self, spec: Spec, files: Mapping[str, Artifact]) -> Document:
        known = self._documents.get(spec.key)
        if known is not None and known[0] is spec and known[1].files == files:
            return known[1]
        digest = spec.digest
        if files:
            digests = {path: artifact.digest for path, artifact in files.items()}
            digest = digest_of_resource(spec.resource, digests)
        return Document(spec.written, files, digest, spec.path, spec.line)

    def _without_cycles(
        self, documents: list[tuple[Spec, Document]]
    ) -> tuple[list[tuple[Spec, Document]], list[Fault]]:
        graph = {spec.key: spec.references for spec, _ in documents}
        if graph == self._acyclic:
            return documents, []
        ways = find_cycles(_inside(graph))
        if not ways:
            self._acyclic = graph
            return documents, []
        faults = []
        for spec, _ in documents:
            if spec.key in ways:
                way = ways[spec.key]
                field = next(r.field for r in spec.references if r.key == way[1])
                printed = " -> ".join(key.short for key in way)
                message = f"needs itself in a circle: {printed}; remove one of the links"
                faults.append(spec.fault(field, message))
        return [pair for pair in documents if pair[0].key not in ways], faults

    def _checked(
        self, documents: list[tuple[Spec, Document]]
    ) -> tuple[list[tuple[Spec, Document]], list[Fault]]:
        if self._check is no_check:
            return documents, []
        by_key = {spec.key: spec for spec, _ in documents}
        targets = digest_of(
            {key.short: spec.digest for key, spec in by_key.items() if key.kind == "Target"}
        )
        passed = self._passed if targets == self._targets else {}
        self._targets = targets

        def lookup(key: Key) -> Resource | None:
            spec = by_key.get(key)
            return None if spec is None else spec.resource

        good, faults = [], []
        for spec, document in documents:
            wrong = []
            if passed.get(spec.key) is not spec:
                found = self._check(spec.resource, lookup)
                wrong = [spec.fault(field, message) for field, message in found]
            faults += wrong
            if not wrong:
                good.append((spec, document))
        self._passed = {spec.key: spec for spec, _ in good}
        return good, faults


def _inside(graph: Mapping[Key, Sequence[Reference]]) -> dict[Key, list[Key]]:
    """Who of the set needs whom of it, by key. Most need nobody else: a Target that is built in."""
    needs = {key: [r.key for r in found if r.key in graph] for key, found in graph.items()}
    needed = {need for found in needs.values() for need in found}
    return {key: found for key, found in needs.items() if found or key in needed}


def _is_readable(entry: Entry) -> bool:
    is_spec = entry.path.endswith(SUFFIXES)
    return is_spec and entry.kind is EntryKind.FILE and not is_odd_name(entry.path)


def _not_a_file(entry: Entry) -> str:
    if entry.kind is EntryKind.UNREADABLE:
        return entry.message
    return f"is {entry.kind} and is not read; put a regular file here, or list it in {IGNORE_FILE}"


def _without_duplicates(specs: list[Spec]) -> tuple[list[Spec], list[Fault]]:
    """Drop every spec whose key is declared twice: nobody knows which one is meant."""
    if len({spec.key for spec in specs}) == len(specs):
        return specs, []
    by_key: dict[Key, list[Spec]] = defaultdict(list)
    for spec in specs:
        by_key[spec.key].append(spec)
    faults = []
    for key, same in by_key.items():
        for spec in same if len(same) > 1 else ():
            others = ", ".join(f"{s.path}:{s.line}" for s in same if s is not spec)
            message = f"{key.short} is declared in {others} too; keep one of them"
            faults.append(spec.fault("metadata.name", message))
    return [spec for spec in specs if len(by_key[spec.key]) == 1], faults


def _is_same(known: Entry, now: Entry) -> bool:
    """Whether an entry is sure to have the content that it had."""
    same = known is now or (known.identity, known.kind) == (now.identity, now.kind)
    return same and known.settled
