"""What comes from outside into the sagemaker adapter: archives, and errors of any shape."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from rig.fuzzing import fuzzed, in_time, mutate
from windlass_adapters.base import (
    AdapterError,
    AmbiguousError,
    TerminalError,
    TransientError,
    WaitingError,
)
from windlass_adapters.sagemaker.errors import adapter_error, passes
from windlass_adapters.sagemaker.packing import FORMATS, check_archive, check_name
from windlass_schemas import Reason

CLASSES = (TransientError, WaitingError, TerminalError, AmbiguousError)
_CODES = st.sampled_from(
    ["ValidationException", "ThrottlingException", "ResourceInUse", "500", "400", "404", ""]
) | st.text(max_size=30)
_WORDS = st.sampled_from(
    [
        "Could not find endpoint",
        "Cannot create already existing model",
        "Cannot update in-progress endpoint",
        "ResourceLimitExceeded",
        "CapacityError",
    ]
) | st.text(max_size=80)
_NAMES = st.sampled_from(
    ["model.onnx", "../model.onnx", "/model.onnx", "1/saved_model.pb", "a" * 200, "ü/\n.pth", "."]
)
_TYPES = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]
)


def _archive(members: list[tuple[str, bytes, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as made:
        for name, type_, data in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = type_, len(data) if type_ == tarfile.REGTYPE else 0
            made.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


_archives = st.lists(st.tuples(_NAMES, _TYPES, st.binary(max_size=50)), max_size=6).map(_archive)
_edits = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 40), st.integers(0, 3), st.binary(max_size=6)),
    max_size=4,
)


def _refusal(file: Path, format_: str) -> TerminalError | None:
    try:
        check_archive(file, file.name, format_)
    except TerminalError as error:
        return error
    return None


@fuzzed
@given(_archives, _edits, st.sampled_from(FORMATS))
def test_any_archive_is_taken_or_refused_in_words(
    archive: bytes, edits: list[tuple[int, int, int, bytes]], format_: str
) -> None:
    """Broken, hostile or fine: no other exception, and no path out of the folder is let pass."""
    data = mutate(archive, edits)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tar.gz"
        file.write_bytes(data)

        def check(_: bytes) -> None:
            if (refusal := _refusal(file, format_)) is not None:
                assert refusal.reason is Reason.INVALID_ARTIFACT
                return
            with tarfile.open(file) as taken:
                for member in taken:
                    assert not member.name.startswith("/")
                    assert ".." not in Path(member.name).parts
                    assert member.isfile() or member.isdir()

        in_time(check, data)


@fuzzed
@given(st.text(max_size=80), st.sampled_from(FORMATS))
def test_any_file_name_is_judged(name: str, format_: str) -> None:
    """Words or nothing."""
    assert isinstance(check_name(name, format_), str)


@fuzzed
@given(_CODES, _WORDS, st.integers(0, 700) | st.none(), st.booleans(), st.text(max_size=30))
def test_any_answer_is_one_of_the_four_errors(
    code: str, words: str, status: int | None, changes: bool, operation: str
) -> None:
    """Whatever AWS may come to say; and an effect that may have happened is never just retried."""
    response = {
        "Error": {"Code": code, "Message": words},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    error = adapter_error(ClientError(response, "CreateEndpoint"), operation, changes=changes)
    assert isinstance(error, AdapterError)
    assert isinstance(error, CLASSES)
    if changes and status is not None and status >= 500 and code == str(status):
        assert isinstance(error, AmbiguousError)
    assert isinstance(passes(words), bool)
