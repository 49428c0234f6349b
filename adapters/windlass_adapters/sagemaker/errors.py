"""What an error of AWS means: the sagemaker adapter's ``classify`` as one table.

The code decides; the message only where AWS gives one code to many things. Every error that leaves
this package is one of the contract's four classes; the finer ones here let the adapter tell "is
not there", "is there already" and "is busy" from the rest.
"""

from __future__ import annotations

import re
from datetime import timedelta

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from windlass_adapters.base import (
    AdapterError,
    AmbiguousError,
    TerminalError,
    TransientError,
    WaitingError,
)
from windlass_schemas import Reason


class AbsentError(TerminalError):
    """It is not there, for certain."""


class ExistsError(AmbiguousError):
    """Something has that name already: ours from before, or another's."""


class BusyError(WaitingError):
    """A change is under way and another one is not taken."""


class QuotaError(WaitingError):
    """A quota or the capacity of AWS is used up; the message has the numbers."""

    retry_after = timedelta(minutes=5)


class ModelAnsweredError(TerminalError):
    """The model's container answered with an error of its own."""

    status = 500
    body = b""


class ThrottledError(TransientError):
    """Too many calls."""


class CredentialsError(WaitingError):
    """No call can succeed with these credentials: a matter of the account, not of one object."""

    reason = Reason.UNAUTHORIZED


class ForbiddenError(TransientError):
    """The credentials may not do this one thing."""

    reason = Reason.UNAUTHORIZED


_THROTTLES = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "RequestThrottled",
    "SlowDown",
}
_PASSING = {
    "ConcurrentUpdateException",
    "ConcurrentModificationException",
    "InternalFailure",
    "InternalServerError",
    "InternalServiceError",
    "InternalServiceException",
    "InternalError",
    "ServiceException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "RequestTimeout",
}
_QUOTA = {"ResourceLimitExceeded", "LimitExceededException", "InsufficientCapacity"}
_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "MissingAuthenticationToken",
}
_FORBIDDEN = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"}
_ABSENT = {
    "ResourceNotFound",
    "ResourceNotFoundException",
    "ObjectNotFoundException",
    "NoSuchKey",
    "NoSuchUpload",
    "NoSuchEntity",
    "ProvisionedConcurrencyConfigNotFoundException",
    "404",
}
_EXISTS = {"ResourceInUse", "ResourceConflictException", "EntityAlreadyExists"}
_MANY_MEANINGS = {
    "ValidationException",
    "ValidationError",
    "ConflictException",
    "InvalidParameterValueException",
}
_ABSENT_TEXT = re.compile(
    r"could not find|requested resource not found|can't find|does not exist|not found"
    r"|no scalable target registered|no scaling policy found",
    re.IGNORECASE,
)
_EXISTS_TEXT = re.compile(r"cannot create already existing|already exists", re.IGNORECASE)
_BUSY_TEXT = re.compile(r"cannot (update|delete) in-progress|in-progress endpoint", re.IGNORECASE)
_CAPACITY_TEXT = re.compile(
    r"capacityerror|insufficient\s*(instance)?\s*capacity|unable to provision requested", re.I
)
_INTERNAL_TEXT = re.compile(r"internalservererror|request to service failed|internal error", re.I)
_ROLE_TEXT = re.compile(r"could not assume role|cannot be assumed|role.* cannot be", re.IGNORECASE)

_NOT_SENT = (EndpointConnectionError, ConnectTimeoutError)
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
    ProfileNotFound,
)


def adapter_error(error: Exception, operation: str = "", *, changes: bool = False) -> AdapterError:
    """The error of the contract that an exception of the client library comes to.

    ``changes`` says whether the call may have had an effect: then a lost answer is ambiguous.
    """
    if isinstance(error, AdapterError):
        return error
    if isinstance(error, ClientError):
        return _of_answer(error, operation, changes=changes)
    what = f"{operation}: " if operation else ""
    said = f"{what}{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, _NO_CREDENTIALS):
        return CredentialsError(f"{said}; renew the credentials of the target")
    if isinstance(error, _NOT_SENT):
        return TransientError(f"{said}; AWS cannot be reached")
    if isinstance(error, ParamValidationError):
        return TerminalError(said, reason=Reason.INVALID_SPEC)
    if isinstance(error, TimeoutError | ReadTimeoutError):
        return AmbiguousError(f"{said}; no answer in time")
    if isinstance(error, ConnectionClosedError | HTTPClientError | OSError):
        return AmbiguousError(said) if changes else TransientError(said)
    if isinstance(error, BotoCoreError):
        return TerminalError(said)
    return TerminalError(said)


def _of_answer(error: ClientError, operation: str, *, changes: bool) -> AdapterError:
    answer = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    message = str(answer.get("Error", {}).get("Message", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
    said = f"{operation or error.operation_name}: {code}: {message}".rstrip(": ")
    if code == "ModelError":
        answered = ModelAnsweredError(said)
        answered.status = int(answer.get("OriginalStatusCode") or 500)
        answered.body = str(answer.get("OriginalMessage") or message).encode()
        return answered
    found = _by_code(code, said) or _by_text(code, message, said)
    if found is not None:
        return found
    if status >= 500:
        return AmbiguousError(said) if changes else TransientError(said)
    return TerminalError(said)


def _by_code(code: str, said: str) -> AdapterError | None:
    if code in _THROTTLES:
        return ThrottledError(said)
    if code in _QUOTA:
        return QuotaError(f"{said}; waiting for quota or capacity")
    if code in _CREDENTIALS:
        return CredentialsError(f"{said}; renew the credentials of the target")
    if code == "400" and said.startswith("Head"):  # a HEAD has no words; S3 means the token
        return CredentialsError(f"{said}; the credentials have expired, as a rule: renew them")
    if code in _FORBIDDEN:
        return ForbiddenError(f"{said}; allow this action: see the policy in docker/iam")
    if code in _ABSENT:
        return AbsentError(said)
    if code in _EXISTS:
        going = said.startswith(("Delete", "Stop"))
        return BusyError(f"{said}; waiting until it is over") if going else ExistsError(said)
    if code in _PASSING:
        return AmbiguousError(said)
    return None


def _by_text(code: str, message: str, said: str) -> AdapterError | None:
    """ValidationException means many things; so do Conflict and BadRequest."""
    if code not in _MANY_MEANINGS:
        return None
    if _BUSY_TEXT.search(message):
        return BusyError(f"{said}; waiting until it is done")
    if _EXISTS_TEXT.search(message):
        return ExistsError(said)
    if said.startswith("Stop") and not _ABSENT_TEXT.search(message):
        return BusyError(f"{said}; it has ended meanwhile, looking again")
    if _ROLE_TEXT.search(message):
        return ForbiddenError(f"{said}; let SageMaker assume the role (its trust policy)")
    if _ABSENT_TEXT.search(message):
        return AbsentError(said)
    if code == "ConflictException":
        return TransientError(said)
    return TerminalError(said, reason=Reason.INVALID_SPEC)


def passes(failure: str) -> bool:
    """Whether a FailureReason is about capacity or AWS itself, and not about what we asked."""
    return bool(_CAPACITY_TEXT.search(failure) or _INTERNAL_TEXT.search(failure))
