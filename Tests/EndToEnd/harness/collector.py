"""An OTLP/HTTP collector that decodes with the official definitions, and misbehaves on request.

Every post is decoded strictly; a body that is not OTLP fails the test when the stage is cleared.
Spans count once their post was accepted, which is when its 200 has been sent: before that, the
balancer may rightly send them again.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from harness import message
from harness.backends import BackendConnection, Script, ScriptedBackend
from harness.spans import Span, Tree, from_request, trees
from harness.waiting import PATIENCE_S
from harness.wire import Request

Behaviour = Callable[[BackendConnection, Request], None]


@dataclass
class Post:
    """One export request: when it came, over which connection, what it carried."""

    time_s: float
    connection: int
    content_type: str
    fields: list[tuple[str, str]]
    body: bytes
    spans: list[Span]
    accepted: bool = False
    """Whether it was answered with 200."""


class Collector:
    """Accepts exports on an ephemeral port.

    `behaviours` play on the first posts, one each; after them every post is accepted. `listen` makes the server.
    """

    def __init__(
        self,
        *behaviours: Behaviour,
        port: int = 0,
        path: str = "/v1/traces",
        listen: Callable[[Script, int], ScriptedBackend] = lambda script, port: ScriptedBackend(script, port=port),
    ) -> None:
        self._path = path
        self._behaviours = list(behaviours)
        self._changed = threading.Condition()
        self.posts: list[Post] = []
        self._server = listen(self._serve, port)
        self.port = self._server.port

    @property
    def endpoint(self) -> str:
        """What follows `--otel-endpoint`."""
        address = self._server.address
        return address if "://" in address else f"http://{address}"

    def close(self) -> None:
        self._server.close()

    # Serving

    def _serve(self, connection: BackendConnection) -> None:
        while True:
            request = connection.receive_request_head()
            if request.get("Expect"):
                connection.send(message.response_head(status="100 Continue"))
            self._take(connection, _with_body(connection, request))

    def _take(self, connection: BackendConnection, request: Request) -> None:
        assert (request.method, request.target) == ("POST", self._path), request.head
        post = _post(connection, request)
        with self._changed:
            behave = self._behaviours.pop(0) if self._behaviours else accept
            self.posts.append(post)
            self._changed.notify_all()
        behave(connection, request)
        with self._changed:
            post.accepted = behave is accept or isinstance(behave, Gate)
            self._changed.notify_all()

    # What tests look at

    @property
    def accepted_spans(self) -> list[Span]:
        """The spans of every accepted post, each once: delivery may repeat itself."""
        unique = {span.span_id: span for post in self.posts if post.accepted for span in post.spans}
        return list(unique.values())

    def wait_for_posts(self, count: int, timeout_s: float = PATIENCE_S) -> list[Post]:
        """Waits until at least `count` posts came, accepted or not."""
        self._wait(lambda: len(self.posts) >= count, f"{count} posts", timeout_s)
        return self.posts

    def wait_for_trees(self, count: int, timeout_s: float = PATIENCE_S) -> list[Tree]:
        """Waits until `count` trees of requests came, checks each, and returns them by start time."""
        self._wait(lambda: len(self._trees()) >= count, f"{count} trees", timeout_s)
        found = self._trees()
        assert len(found) == count, f"expected {count} trees: {[tree.outline() for tree in found]}"
        for tree in found:
            tree.assert_sound()
        return found

    def wait_for_tree(self, predicate: Callable[[Tree], bool] = lambda tree: True) -> Tree:
        """Waits for the one tree of a request that fits, and checks that it is sound."""
        self._wait(lambda: any(map(predicate, self._trees())), "a tree")
        (found,) = filter(predicate, self._trees())
        found.assert_sound()
        return found

    def wait_for_connections(self, count: int, timeout_s: float = PATIENCE_S) -> list[Tree]:
        """Waits until `count` traces of connections to backends came, checks each, and returns them by start time."""
        self._wait(lambda: len(self.connections) >= count, f"{count} connections", timeout_s)
        found = self.connections
        assert len(found) == count, f"expected {count} connections: {[tree.outline() for tree in found]}"
        for tree in found:
            tree.assert_sound()
        return found

    @property
    def connections(self) -> list[Tree]:
        """The traces of connections to backends."""
        return [tree for tree in trees(self.accepted_spans) if tree.is_connection]

    def _trees(self) -> list[Tree]:
        """Those of requests."""
        return [tree for tree in trees(self.accepted_spans) if not tree.is_connection]

    def _wait(self, condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
        with self._changed:
            met = self._changed.wait_for(condition, timeout_s)
        assert met, f"the collector waited for {what}; it has {[t.outline() for t in self._trees()]}"


def for_target(target: str) -> Callable[[Tree], bool]:
    """The tree of the request for `target` (path and query)."""
    return lambda tree: str(tree.span.attributes.get("http.url")).endswith(target)


# Behaviours


def accept(connection: BackendConnection, request: Request) -> None:
    """200 with an ExportTraceServiceResponse in the encoding of the request."""
    content_type = request.get("Content-Type") or ""
    body = b"{}" if "json" in content_type else ExportTraceServiceResponse().SerializeToString()
    connection.send(message.response(body, f"Content-Type: {content_type}"))


def answer(status: str, *fields: str) -> Behaviour:
    """An error status, with a body that says nothing."""
    return lambda connection, request: connection.send(message.response(b"no", *fields, status=status))


def hang(connection: BackendConnection, request: Request) -> None:
    """No answer at all."""
    connection.wait_for_end()


def close_without_answer(connection: BackendConnection, request: Request) -> None:
    connection.close()


def close_mid_way(connection: BackendConnection, request: Request) -> None:
    """Half a response."""
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    connection.close()


def nonsense(connection: BackendConnection, request: Request) -> None:
    """Bytes that are not HTTP."""
    connection.send(b"\x00\xff nonsense \r\n\r\n")
    connection.close()


class Gate:
    """A behaviour that accepts a post only when the test opens the gate: a slow collector."""

    def __init__(self) -> None:
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def __call__(self, connection: BackendConnection, request: Request) -> None:
        assert self._opened.wait(PATIENCE_S * 2), "the test never opened the gate"
        accept(connection, request)


# Decoding


def _with_body(connection: BackendConnection, request: Request) -> Request:
    framed = connection.receive_framed_body(request)
    assert framed, f"a post without a body: {request.head!r}"
    return replace(request, body=framed[0])


def _post(connection: BackendConnection, request: Request) -> Post:
    content_type = request.get("Content-Type") or ""
    body = request.body
    if request.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return Post(
        time_s=time.monotonic(),
        connection=connection.index,
        content_type=content_type,
        fields=request.fields,
        body=body,
        spans=decode(content_type, body),
    )


def decode(content_type: str, body: bytes) -> list[Span]:
    """Decodes an export request strictly; unknown fields are errors in JSON."""
    data = ExportTraceServiceRequest()
    if content_type == "application/x-protobuf":
        data.ParseFromString(body)
    else:
        assert content_type.split(";")[0] == "application/json", content_type
        json_format.Parse(json.dumps(_base64_ids(json.loads(body))), data)
    return from_request(data)


def _base64_ids(value: object) -> object:
    """OTLP/JSON writes ids in hex, unlike proto3 JSON (OTLP specification, "JSON Protobuf Encoding")."""
    if isinstance(value, list):
        return [_base64_ids(item) for item in value]
    if isinstance(value, dict):
        return {key: _base64_id(key, item) for key, item in value.items()}
    return value


def _base64_id(key: str, value: object) -> object:
    if key in ("traceId", "spanId", "parentSpanId") and isinstance(value, str):
        assert re.fullmatch("([0-9a-f]{16}|[0-9a-f]{32})?", value), f"{key} is not an id: {value}"
        return base64.b64encode(bytes.fromhex(value)).decode()
    return _base64_ids(value)
