"""One end of an HTTP/2 connection in cleartext, driven frame by frame with the h2 library.

For clients that do exactly what a test says. What arrives is kept as events; `wait_for` reads on until the
wanted one is there. Received DATA is credited at once unless the client was told to hold its window.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import h2.config
import h2.connection
import h2.events
import h2.settings

from harness.accepting import AcceptingBackend, tls_context
from harness.certificates import Certificate
from harness.waiting import PATIENCE_S

Fields = Sequence[tuple[str, str]]
Event = TypeVar("Event", bound=h2.events.Event)


GOAWAY = 7


@dataclass(frozen=True)
class Goaway:
    """A GOAWAY, kept from the library, which would refuse every frame after it."""

    last_stream_id: int
    error_code: int
    debug_data: bytes


class ConnectionEnded(Exception):
    """The peer ended the connection before what was waited for had come."""


@dataclass
class Answer:
    """What came back on one stream, as far as it went."""

    status: int = 0
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    is_complete: bool = False
    reset: int | None = None
    """The error code of RST_STREAM, when one came."""

    def get(self, name: str) -> str | None:
        return dict(self.fields).get(name)


class Http2Connection:
    def __init__(
        self, sock: socket.socket, *, is_client: bool, is_strict: bool = True, holds_window: bool = False
    ) -> None:
        """`is_strict` False sends fields as they are, right or wrong."""
        self.sock = sock
        sock.settimeout(PATIENCE_S)
        configuration = h2.config.H2Configuration(
            client_side=is_client,
            header_encoding="latin-1",
            validate_outbound_headers=is_strict,
            normalize_outbound_headers=is_strict,
        )
        self.h2 = h2.connection.H2Connection(configuration)
        self.holds_window = holds_window
        self.events: list[h2.events.Event] = []
        self.goaways: list[Goaway] = []
        self._unparsed = b""

    def start(self, settings: dict[h2.settings.SettingCodes, int] | None = None) -> None:
        if settings:
            is_client = self.h2.config.client_side
            self.h2.local_settings = h2.settings.Settings(client=is_client, initial_values=settings)
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.sock.sendall(data)

    def close(self) -> None:
        self.sock.close()

    def abort(self) -> None:
        """Wakes whoever is blocked on this connection, in any thread, and ends it."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # already gone, which is what was wanted

    # Sending

    def send_fields(self, stream: int, fields: Fields, *, ends: bool = False) -> None:
        self.h2.send_headers(stream, fields, end_stream=ends)
        self.flush()

    def send_data(self, stream: int, data: bytes, *, ends: bool = False) -> None:
        """Sends DATA, waiting for credit where there is none."""
        while len(data) > (room := min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)):
            if room > 0:
                self.h2.send_data(stream, data[:room])
                data = data[room:]
            self.flush()
            if self.h2.local_flow_control_window(stream) <= 0:
                self.receive()
        self.h2.send_data(stream, data, end_stream=ends)
        self.flush()

    def reset(self, stream: int, code: int = 8) -> None:
        self.h2.reset_stream(stream, code)
        self.flush()

    def send_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """A frame of any kind, behind the library's back."""
        self.flush()
        self.sock.sendall(
            len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
        )

    # Receiving

    def receive(self) -> None:
        """Reads once and keeps what it meant."""
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionEnded(f"after {self.events} and {self.goaways}")
        for event in self.h2.receive_data(self._without_goaways(data)):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived) and not self.holds_window and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()

    def _without_goaways(self, data: bytes) -> bytes:
        """Whole frames for the library to read; the rest of the last one waits for more."""
        self._unparsed += data
        frames = b""
        while len(self._unparsed) >= 9:
            length = 9 + int.from_bytes(self._unparsed[:3], "big")
            if len(self._unparsed) < length:
                break
            frame, self._unparsed = self._unparsed[:length], self._unparsed[length:]
            if frame[3] == GOAWAY:
                last, code = (int.from_bytes(frame[at : at + 4], "big") for at in (9, 13))
                self.goaways.append(Goaway(last, code, frame[17:]))
            else:
                frames += frame
        return frames

    def wait_for_goaways(self, count: int = 1) -> list[Goaway]:
        self.wait_until(lambda: len(self.goaways) >= count)
        return self.goaways

    def wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.receive()

    def wait_for(self, kind: type[Event], stream: int | None = None) -> Event:
        """The first event of a kind (on a stream), once it is there."""
        while not (found := self.all(kind, stream)):
            self.receive()
        return found[0]

    def all(self, kind: type[Event], stream: int | None = None) -> list[Event]:
        return [
            event
            for event in self.events
            if isinstance(event, kind) and (stream is None or getattr(event, "stream_id", None) == stream)
        ]

    def wait_for_end(self) -> None:
        """Reads until the peer ends the connection."""
        try:
            while True:
                self.receive()
        except (ConnectionEnded, ConnectionResetError):
            pass


class Http2Client(Http2Connection):
    """A client that begins with the preface (RFC 9113 §3.3)."""

    def __init__(
        self,
        port: int,
        *,
        is_strict: bool = True,
        holds_window: bool = False,
        sock: socket.socket | None = None,
        **settings: int,
    ) -> None:
        """`sock` is a connection that is there already, such as one behind TLS."""
        sock = sock or socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        super().__init__(sock, is_client=True, is_strict=is_strict, holds_window=holds_window)
        self.start({h2.settings.SettingCodes[name.upper()]: value for name, value in settings.items()})

    @staticmethod
    def request_fields(path: str = "/", *fields: tuple[str, str], method: str = "GET") -> list[tuple[str, str]]:
        pseudo = [(":method", method), (":scheme", "http"), (":authority", "example.test"), (":path", path)]
        return [*pseudo, *fields]

    def request(
        self, path: str = "/", *fields: tuple[str, str], method: str = "GET", body: bytes | None = None
    ) -> int:
        """Sends a request and returns its stream."""
        return self.open(self.request_fields(path, *fields, method=method), body)

    def open(self, fields: Fields, body: bytes | None = None) -> int:
        """Sends any fields as a request's, and returns the stream."""
        stream = self.h2.get_next_available_stream_id()
        self.send_fields(stream, fields, ends=body is None)
        if body is not None:
            self.send_data(stream, body, ends=True)
        return stream

    def answer(self, stream: int) -> Answer:
        """Waits for the end of a stream."""
        while not ((answer := self.so_far(stream)).is_complete or answer.reset is not None):
            self.receive()
        return answer

    def get(self, path: str = "/", *fields: tuple[str, str]) -> Answer:
        return self.answer(self.request(path, *fields))

    def so_far(self, stream: int) -> Answer:
        """What has come on a stream."""
        answer = Answer()
        for event in self.all(h2.events.Event, stream):
            _note(answer, event)
        return answer


def _note(answer: Answer, event: h2.events.Event) -> None:
    match event:
        case h2.events.ResponseReceived():
            answer.status = int(dict(event.headers)[":status"])
            answer.fields = list(event.headers)
        case h2.events.InformationalResponseReceived():
            answer.interim.append(int(dict(event.headers)[":status"]))
        case h2.events.DataReceived():
            answer.body += event.data
        case h2.events.TrailersReceived():
            answer.trailers = list(event.headers)
        case h2.events.StreamEnded():
            answer.is_complete = True
        case h2.events.StreamReset():
            answer.reset = int(event.error_code)


class Http2BackendConnection(Http2Connection):
    """A connection that an `Http2Backend` accepted."""

    def __init__(self, sock: socket.socket, index: int) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(sock, is_client=False)
        self.index = index
        self.ended = threading.Event()
        self._needs_preface = True

    def next_request(self, count: int = 1) -> h2.events.RequestReceived:
        """The request number `count` of the connection, once its head is here."""
        self.wait_until(lambda: len(self.all(h2.events.RequestReceived)) >= count)
        return self.all(h2.events.RequestReceived)[count - 1]

    def wait_for_stream_end(self, stream: int) -> bytes:
        """Waits for the whole request, and returns its body."""
        self.wait_for(h2.events.StreamEnded, stream)
        return b"".join(event.data for event in self.all(h2.events.DataReceived, stream))

    def answer(self, stream: int, body: bytes = b"", *fields: tuple[str, str], status: int = 200) -> None:
        self.send_fields(stream, [(":status", str(status)), *fields], ends=not body)
        if body:
            self.send_data(stream, body, ends=True)

    def goaway(self, last_stream: int, code: int = 0, debug_data: bytes = b"") -> None:
        payload = last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + debug_data
        self.send_frame(GOAWAY, 0, 0, payload)

    def _without_goaways(self, data: bytes) -> bytes:
        if self._needs_preface:
            self._unparsed += data
            if len(self._unparsed) < 24:
                return b""
            preface, data, self._unparsed = self._unparsed[:24], self._unparsed[24:], b""
            self._needs_preface = False
            return preface + super()._without_goaways(data)
        return super()._without_goaways(data)


Http2Script = Callable[[Http2BackendConnection], None]


class Http2Backend(AcceptingBackend[Http2BackendConnection]):
    """Listens on an ephemeral port and speaks HTTP/2."""

    quiet = (ConnectionEnded, OSError)

    def __init__(
        self, *scripts: Http2Script, certificate: Certificate | None = None, context: ssl.SSLContext | None = None
    ) -> None:
        """With a certificate, or a context, it is an https server, which agrees on h2 by ALPN."""
        context = tls_context(certificate, "h2") if certificate else context
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = listener.getsockname()[1]
        super().__init__(listener, scripts or (serve_http2(),), context)

    def _connection(self, sock: socket.socket, index: int) -> Http2BackendConnection:
        return Http2BackendConnection(sock, index)

    @property
    def address(self) -> str:
        """What follows `--backend`."""
        return f"{'https' if self.context else 'h2c'}://127.0.0.1:{self.port}"

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[dict[str, str]]:
        """The fields of every request that was read, by connection."""
        found = [event for connection in self.connections for event in connection.all(h2.events.RequestReceived)]
        return [dict(event.headers) for event in found]


def refuse_the_rest(connection: Http2BackendConnection) -> None:
    """Answers a request whose body is on its way, and refuses what is left of it (RFC 9113 §8.1)."""
    connection.start()
    stream = connection.next_request().stream_id
    connection.answer(stream, b"no", status=413)
    connection.reset(stream, 0)
    connection.wait_for_end()


Http2Responder = Callable[[Http2BackendConnection, int, dict[str, str], bytes], None]


def serve_http2(
    respond: Http2Responder | None = None, settings: dict[h2.settings.SettingCodes, int] | None = None
) -> Http2Script:
    """Answers each request when it is whole, until the peer closes the connection."""

    def script(connection: Http2BackendConnection) -> None:
        connection.start(settings)
        answered: set[int] = set()
        while True:
            for event in connection.all(h2.events.StreamEnded):
                if event.stream_id not in answered:
                    answered.add(event.stream_id)
                    _respond(connection, event.stream_id, respond or say_path)
            connection.receive()

    return script


def _respond(connection: Http2BackendConnection, stream: int, respond: Http2Responder) -> None:
    head = connection.all(h2.events.RequestReceived, stream)[0]
    body = b"".join(event.data for event in connection.all(h2.events.DataReceived, stream))
    respond(connection, stream, dict(head.headers), body)


def say_path(connection: Http2BackendConnection, stream: int, fields: dict[str, str], body: bytes) -> None:
    """200 with the path as its body."""
    connection.answer(stream, fields[":path"].encode())


def echo_http2(connection: Http2BackendConnection, stream: int, fields: dict[str, str], body: bytes) -> None:
    """200 with the request's body."""
    connection.answer(stream, body)
