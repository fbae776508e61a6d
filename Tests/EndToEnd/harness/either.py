"""Clients and backends that speak HTTP/1.1 or HTTP/2, in cleartext or over TLS, behind one interface.

For tests of what must be the same whichever version is spoken: `Client` and `Server` are the two ends of one
exchange, and the version shows in nothing but the kind of the connection, one of `KINDS`.
"""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import h2.events

from harness import message
from harness.accepting import tls_context
from harness.backends import BackendConnection, ScriptedBackend
from harness.certificates import Certificate
from harness.http2 import Answer, Http2Backend, Http2BackendConnection, Http2Client
from harness.stage import Stage
from harness.tls import Front
from harness.wire import Connection

Field = tuple[str, str]
KINDS = ("h1", "h1-tls", "h2", "h2-tls")


@dataclass
class Got:
    """A message as it arrived."""

    status: int = 0
    method: str = ""
    target: str = ""
    fields: list[Field] = field(default_factory=list)
    body: bytes = b""
    trailers: list[Field] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name]


class BrokenOff(Exception):
    """The answer ended before it was whole."""


# Backends


class Server(ABC):
    """The backend's end of one exchange."""

    @abstractmethod
    def head(self) -> Got:
        """The request without its body."""

    @abstractmethod
    def body(self) -> tuple[bytes, list[Field]]:
        """The whole body, and the trailers."""

    @abstractmethod
    def begin(self, status: int, *fields: Field, ends: bool = False) -> None:
        """A head, interim or final, as it is; with `ends` nothing follows."""

    @abstractmethod
    def answer(
        self, *fields: Field, status: int = 200, body: bytes = b"", trailers: list[Field] | None = None
    ) -> None:
        """A whole answer; with trailers its length is not told."""

    @abstractmethod
    def cut(self, body: bytes) -> None:
        """Some of a body and then, in the version's own way, nothing more."""


class Server1(Server):
    def __init__(self, connection: BackendConnection) -> None:
        """Waits for the head, so that what is played then is what the test wants with it."""
        self._connection = connection
        self._head = connection.receive_request_head()

    def head(self) -> Got:
        return Got(method=self._head.method, target=self._head.target, fields=self._head.fields)

    def body(self) -> tuple[bytes, list[Field]]:
        return self._connection.receive_framed_body(self._head) or (b"", [])

    def begin(self, status: int, *fields: Field, ends: bool = False) -> None:
        self._connection.send(message.response_head(*_lines(fields), status=f"{status} Any"))

    def answer(
        self, *fields: Field, status: int = 200, body: bytes = b"", trailers: list[Field] | None = None
    ) -> None:
        line, lines = f"{status} Any", _lines(fields)
        if trailers is None:
            return self._connection.send(message.response(body, *lines, status=line))
        chunks = [body] if body else []
        self._connection.send(message.chunked_response(chunks, *lines, trailers=_lines(trailers), status=line))

    def cut(self, body: bytes) -> None:
        self._connection.send(body)
        self._connection.close()


class Server2(Server):
    def __init__(self, connection: Http2BackendConnection, stream: int) -> None:
        self._connection = connection
        self._stream = stream

    def head(self) -> Got:
        fields = list(self._connection.wait_for(h2.events.RequestReceived, self._stream).headers)
        known = dict(fields)
        return Got(method=known[":method"], target=known[":path"], fields=fields)

    def body(self) -> tuple[bytes, list[Field]]:
        body = self._connection.wait_for_stream_end(self._stream)
        trailers = self._connection.all(h2.events.TrailersReceived, self._stream)
        return body, list(trailers[0].headers) if trailers else []

    def begin(self, status: int, *fields: Field, ends: bool = False) -> None:
        self._connection.send_fields(self._stream, [(":status", str(status)), *fields], ends=ends)

    def answer(
        self, *fields: Field, status: int = 200, body: bytes = b"", trailers: list[Field] | None = None
    ) -> None:
        length = [("content-length", str(len(body)))] if trailers is None else []
        self.begin(status, *length, *fields, ends=not body and trailers is None)
        if body:
            self._connection.send_data(self._stream, body, ends=trailers is None)
        if trailers is not None:
            self._connection.send_fields(self._stream, trailers, ends=True)

    def cut(self, body: bytes) -> None:
        self._connection.send_data(self._stream, body, ends=True)


Play = Callable[[Server], None]


class EitherBackend:
    """A backend of any kind. Each exchange plays what `play` is at that moment."""

    def __init__(self, kind: str, stage: Stage, certificate: Certificate) -> None:
        self.play: Play = lambda server: None
        self._backend: ScriptedBackend | Http2Backend
        if kind.startswith("h2"):
            shown = certificate if kind == "h2-tls" else None
            self._backend = stage.keep(Http2Backend(self._serve2, certificate=shown))
        else:
            context = tls_context(certificate, "http/1.1") if kind == "h1-tls" else None
            self._backend = stage.keep(ScriptedBackend(self._serve1, context=context))

    @property
    def address(self) -> str:
        return self._backend.address

    def _serve1(self, connection: BackendConnection) -> None:
        while connection.sock.fileno() >= 0:
            server = Server1(connection)
            self.play(server)

    def _serve2(self, connection: Http2BackendConnection) -> None:
        connection.start()
        count = 0
        while True:
            count += 1
            server = Server2(connection, connection.next_request(count).stream_id)
            self.play(server)


# Clients


class Client(ABC):
    """The client's end of one exchange."""

    @abstractmethod
    def begin(self, method: str, *fields: Field, ends: bool = False) -> None:
        """A head as it is, for /path?query; with `ends` nothing follows."""

    @abstractmethod
    def send_part(self, body: bytes, *, ends: bool = False) -> None:
        """A part of a body whose length the head has told, perhaps the last one."""

    @abstractmethod
    def send(
        self, method: str, *fields: Field, body: bytes | None = None, trailers: list[Field] | None = None
    ) -> None:
        """A whole request; with trailers its length is not told."""

    @abstractmethod
    def wait_for_interim(self) -> int:
        """The status of the next interim response."""

    @abstractmethod
    def answer(self) -> Got:
        """The whole answer. Raises `BrokenOff` when it ends too early."""

    @abstractmethod
    def close(self) -> None: ...


class Client1(Client):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._method = ""

    def begin(self, method: str, *fields: Field, ends: bool = False) -> None:
        self._method = method
        self._connection.send(message.request("/path?query", *_lines(fields), method=method))

    def send_part(self, body: bytes, *, ends: bool = False) -> None:
        self._connection.send(body)

    def send(
        self, method: str, *fields: Field, body: bytes | None = None, trailers: list[Field] | None = None
    ) -> None:
        lines = _lines(fields)
        self._method = method
        if trailers is None:
            return self._connection.send(message.request("/path?query", *lines, method=method, body=body))
        chunks = [body] if body else []
        ends = _lines(trailers)
        self._connection.send(message.chunked_request("/path?query", chunks, *lines, method=method, trailers=ends))

    def wait_for_interim(self) -> int:
        return self._connection.receive_response_head().status

    def answer(self) -> Got:
        try:
            response = self._connection.receive_response(self._method)
        except Exception as error:
            raise BrokenOff from error
        interim = [each.status for each in response.interim]
        return Got(response.status, "", "", response.fields, response.body, response.trailers, interim)

    def close(self) -> None:
        self._connection.close()


class Client2(Client):
    def __init__(self, connection: Http2Client) -> None:
        self._connection = connection
        self._stream = 0
        self._seen_interim = 0

    def begin(self, method: str, *fields: Field, ends: bool = False) -> None:
        self._stream = self._connection.h2.get_next_available_stream_id()
        head = self._connection.request_fields("/path?query", *fields, method=method)
        self._connection.send_fields(self._stream, head, ends=ends)

    def send_part(self, body: bytes, *, ends: bool = False) -> None:
        self._connection.send_data(self._stream, body, ends=ends)

    def send(
        self, method: str, *fields: Field, body: bytes | None = None, trailers: list[Field] | None = None
    ) -> None:
        length = [("content-length", str(len(body)))] if body is not None and trailers is None else []
        self.begin(method, *length, *fields, ends=body is None and trailers is None)
        if body is not None:
            self._connection.send_data(self._stream, body, ends=trailers is None)
        if trailers is not None:
            self._connection.send_fields(self._stream, trailers, ends=True)

    def wait_for_interim(self) -> int:
        self._seen_interim += 1
        self._connection.wait_until(lambda: len(self._so_far.interim) >= self._seen_interim)
        return self._so_far.interim[self._seen_interim - 1]

    @property
    def _so_far(self) -> Answer:
        return self._connection.so_far(self._stream)

    def answer(self) -> Got:
        answer = self._connection.answer(self._stream)
        if not answer.is_complete:
            raise BrokenOff(f"reset with {answer.reset}")
        return Got(
            answer.status, "", "", answer.fields, answer.body, answer.trailers, answer.interim[self._seen_interim :]
        )

    def close(self) -> None:
        self._connection.close()


def connect(kind: str, front: Front) -> Client:
    """A client of any kind on a connection of its own."""
    if kind == "h1":
        return Client1(front.balancer.connect())
    if kind == "h2":
        return Client2(Http2Client(front.balancer.port))
    context: ssl.SSLContext = front.context()
    context.set_alpn_protocols(["h2"] if kind == "h2-tls" else ["http/1.1"])
    connection = front.connect(context=context)
    return Client2(Http2Client(front.port, sock=connection.sock)) if kind == "h2-tls" else Client1(connection)


def _lines(fields: Iterable[Field]) -> list[str]:
    return [f"{name}: {value}" for name, value in fields]
