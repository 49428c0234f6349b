"""GRPCInferenceService: which call is whose. Calls join the same queues as requests over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, Protocol, Self, TypeVar

import grpc
import structlog
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from windlass.serving.access import credential_of
from windlass.serving.certificate import Renewed
from windlass.serving.fleet.relay import AGE
from windlass.serving.grpc_v2 import inference_pb2 as pb
from windlass.serving.grpc_v2.messages import MessageForm
from windlass.serving.http import Limits, Reply
from windlass.serving.inference import Inference, Waiting
from windlass.serving.metrics import Metrics
from windlass.serving.oip import model_metadata, server_metadata
from windlass.serving.pages import Whole, all_statistics, index, load_or_unload
from windlass.serving.process import GRPC_SETTING, STOP_GRACE, Place, port_in_use

SERVICE = "inference.GRPCInferenceService"
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class Context(Protocol):
    """What a call can do beside answering."""

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call without an answer; raises."""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None:
        """The call's headers, names in lower case."""


log = structlog.get_logger()


class RefusedError(Exception):
    """A call that gets no answer but a status."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(json.loads(reply.body)["error"])
        self.code = _CODES.get(reply.status, grpc.StatusCode.INTERNAL)


class Calls:
    """The methods of the protocol."""

    def __init__(
        self, inference: Inference, metrics: Metrics, version: str, whole: Whole | None = None
    ) -> None:
        self._inference = inference
        self._metrics = metrics
        self._version = version
        self._whole = whole

    async def live(self, request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ready(self, request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=True)

    async def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        found = self._inference.find(request.name, request.version or None)
        return pb.ModelReadyResponse(ready=not isinstance(found, Reply))

    async def server(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return _filled(pb.ServerMetadataResponse, server_metadata(self._version))

    async def model(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        found = self._inference.find(request.name, request.version or None)
        if isinstance(found, Reply):
            raise RefusedError(found)
        name, signature = found[0].name, found[1].model.signature
        document = model_metadata(name, found[1].order.version, signature)
        return _filled(pb.ModelMetadataResponse, document)

    async def stats(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        named: tuple[str, str] | None = None
        if request.name:
            one = self._inference.find(request.name, request.version or None)
            if isinstance(one, Reply):
                raise RefusedError(one)
            named = one[0].name, one[1].order.version
        now = self._metrics.snapshot() if self._whole is None else await self._whole()
        stats = all_statistics(now, *named) if named else all_statistics(now)
        return _filled(pb.ModelStatisticsResponse, {"model_stats": stats})

    async def index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        entries = index(self._inference.deployments, ready_only=request.ready)
        return _filled(pb.RepositoryIndexResponse, {"models": entries})

    async def load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        _raise_refusal(load_or_unload(self._inference, request.model_name, "load"))
        return pb.RepositoryModelLoadResponse()

    async def unload(
        self, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        _raise_refusal(load_or_unload(self._inference, request.model_name, "unload"))
        return pb.RepositoryModelUnloadResponse()

    async def infer(self, request: pb.ModelInferRequest, context: Context) -> bytes:
        """The answer's message, as bytes. Raises RefusedError."""
        begun = time.perf_counter()
        model = request.model_name, request.model_version or None
        self._metrics.under_way += 1
        try:
            form = MessageForm(request)
            waiting, key = Waiting(), _credential(context)
            self._inference.submit(form, model, b"", begun, waiting, key)
            reply = await waiting.answer()
        finally:
            self._metrics.under_way -= 1
        _raise_refusal(reply)
        return reply.body


def _raise_refusal(reply: Reply) -> None:
    if reply.status != 200:
        raise RefusedError(reply)


M = TypeVar("M", bound=Message)


def _filled(kind: type[M], document: Mapping[str, object]) -> M:
    """A message with the members of a JSON document, which has the same names."""
    filled: M = ParseDict(document, kind())
    return filled


class GrpcServer:
    """The second port. Use inside ``async with``; leaving it lets the calls under way end."""

    def __init__(
        self,
        calls: Calls,
        place: Place,
        limits: Limits,
        tls: Renewed | None = None,
        unix: str | None = None,
    ) -> None:
        """``unix`` is a socket to listen on in the place of a port."""
        host, port = place.host, place.grpc_port or 0
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        options = [
            ("grpc.max_receive_message_length", limits.body),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
        if unix is not None:
            address = f"unix:{unix}"
            # Calls under way end when they end: a stream may outlive its connection's age by far.
            options += [("grpc.max_connection_age_ms", round(AGE * 1000))]
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((_handlers(calls),))
        try:
            self.port: int = self._add(address, tls)
        except RuntimeError:
            raise port_in_use(host, port, GRPC_SETTING) from None

    def _add(self, address: str, tls: Renewed | None) -> int:
        if tls is None:
            return int(self._server.add_insecure_port(address))

        def now() -> grpc.ServerCertificateConfiguration:
            return grpc.ssl_server_certificate_configuration([tls.pair])

        # Asked again at each handshake: a renewed certificate needs no new server.
        return int(
            self._server.add_secure_port(address, grpc.dynamic_ssl_server_credentials(now(), now))
        )

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._server.stop(STOP_GRACE)


def _handlers(calls: Calls) -> grpc.GenericRpcHandler:
    methods = {
        "ServerLive": _unary(calls.live, pb.ServerLiveRequest),
        "ServerReady": _unary(calls.ready, pb.ServerReadyRequest),
        "ModelReady": _unary(calls.model_ready, pb.ModelReadyRequest),
        "ServerMetadata": _unary(calls.server, pb.ServerMetadataRequest),
        "ModelMetadata": _unary(calls.model, pb.ModelMetadataRequest),
        "ModelStatistics": _unary(calls.stats, pb.ModelStatisticsRequest),
        "RepositoryIndex": _unary(calls.index, pb.RepositoryIndexRequest),
        "RepositoryModelLoad": _unary(calls.load, pb.RepositoryModelLoadRequest),
        "RepositoryModelUnload": _unary(calls.unload, pb.RepositoryModelUnloadRequest),
        "ModelInfer": grpc.unary_unary_rpc_method_handler(
            _inference(calls),
            request_deserializer=pb.ModelInferRequest.FromString,
            response_serializer=_serialized,
        ),
    }
    methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        _stream(calls),
        request_deserializer=pb.ModelInferRequest.FromString,
        response_serializer=_serialized,
    )
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _unary(method: Callable[[M], Awaitable[object]], kind: type[M]) -> grpc.RpcMethodHandler:
    async def call(request: M, context: Context) -> object:
        try:
            return await method(request)
        except RefusedError as error:
            await context.abort(error.code, str(error))
        except Exception:
            log.exception("fault in a call", method=kind.__name__)
            text = "a fault in Windlass; the log of the serving process has the details"
            await context.abort(grpc.StatusCode.INTERNAL, text)

    return grpc.unary_unary_rpc_method_handler(
        call, request_deserializer=kind.FromString, response_serializer=_serialized
    )


def _inference(calls: Calls) -> Callable[[pb.ModelInferRequest, Context], Awaitable[object]]:
    async def call(request: pb.ModelInferRequest, context: Context) -> object:
        try:
            return await calls.infer(request, context)
        except RefusedError as error:
            await context.abort(error.code, str(error))

    return call


def _credential(context: Context) -> str | None:
    pairs = context.invocation_metadata() or ()
    return credential_of({name: value for name, value in pairs if isinstance(value, str)})


def _stream(
    calls: Calls,
) -> Callable[[AsyncIterator[pb.ModelInferRequest], Context], AsyncIterator[object]]:
    async def stream(
        requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[object]:
        async for request in requests:
            try:
                body = await calls.infer(request, context)
                answer = pb.ModelInferResponse.FromString(body)
                yield pb.ModelStreamInferResponse(infer_response=answer)
            except RefusedError as error:
                answer = pb.ModelInferResponse(id=request.id)
                yield pb.ModelStreamInferResponse(error_message=str(error), infer_response=answer)

    return stream


def _serialized(message: object) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()  # type: ignore[attr-defined]  # a message
