"""HTTP/1.1 on a bare socket, as strict as the tests need it to be.

`Connection` is one end of a TCP or Unix connection. Clients and scripted backends both use it: it
remembers every byte that arrived, and reads whole messages with a parser that refuses whatever is
not exactly HTTP/1.1 (RFC 9112). It repairs nothing, so a sloppy balancer shows.

Every call blocks for at most the connection's timeout and then raises TimeoutError.
"""

from __future__ import annotations

import re
import select
import socket
import struct
from dataclasses import dataclass, field, replace

from harness.waiting import PATIENCE_S

Fields = list[tuple[str, str]]

_FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00\r\n]*?)[ \t]*")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^ \x00\r\n]+) HTTP/(1\.[01])")
_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-9][0-9]{2}) ([^\x00\r\n]*)")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(;[^\r\n]*)?")
_RECEIVE_BYTES = 1 << 16


class PeerClosed(Exception):
    """The peer ended the connection cleanly (FIN) before what was asked for had arrived."""

    def __init__(self, partial: bytes) -> None:
        super().__init__(f"peer closed after {len(partial)} further bytes: {partial[:200]!r}")
        self.partial = partial


class MalformedMessage(Exception):
    """What arrived is not HTTP/1.1."""


@dataclass(frozen=True)
class Message:
    """What requests and responses have in common.

    `head` is the exact bytes up to and with the empty line; `body` is decoded from its framing.
    """

    head: bytes
    version: str
    fields: Fields
    body: bytes
    trailers: Fields

    def all(self, name: str) -> list[str]:
        """The values of every field line called `name`, in order."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The one value of `name`; None when absent, an error when repeated."""
        values = self.all(name)
        if len(values) > 1:
            raise MalformedMessage(f"{name} appears {len(values)} times: {values}")
        return values[0] if values else None

    @property
    def is_chunked(self) -> bool:
        return (self.get("Transfer-Encoding") or "").lower() == "chunked"

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass(frozen=True)
class Request(Message):
    method: str
    target: str


@dataclass(frozen=True)
class Response(Message):
    """`interim` holds the 1xx responses that came before this final one."""

    status: int
    reason: str
    interim: list[Response] = field(default_factory=list)

    @property
    def closes(self) -> bool:
        """Whether the server says that this is its last response on the connection."""
        options = [option.strip().lower() for option in ",".join(self.all("Connection")).split(",")]
        return "close" in options or (self.version == "1.0" and "keep-alive" not in options)


class Connection:
    """One end of a byte stream, with what it received remembered in `received`."""

    def __init__(self, sock: socket.socket, timeout_s: float = PATIENCE_S) -> None:
        self.sock = sock
        self.received = bytearray()
        self._consumed = 0
        sock.settimeout(timeout_s)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # Sending and ending

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_slowly(self, data: bytes) -> None:
        """Sends byte by byte; with TCP_NODELAY each is a segment of its own."""
        for index in range(len(data)):
            self.sock.sendall(data[index : index + 1])

    def half_close(self) -> None:
        """Sends FIN; this end can still read."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def abort(self) -> None:
        """Wakes whoever is blocked on this connection, in any thread, and ends it."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # already gone, which is what was wanted

    def reset(self) -> None:
        """Closes with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # Receiving bytes

    @property
    def unread(self) -> bytes:
        """Bytes that arrived and that no call has taken yet."""
        return bytes(self.received[self._consumed :])

    def forget(self) -> None:
        """Drops the memory of bytes already taken, for streams too large to keep."""
        del self.received[: self._consumed]
        self._consumed = 0

    def receive_exactly(self, count: int) -> bytes:
        while len(self.received) - self._consumed < count:
            self._receive_some()
        return self._take(count)

    def receive_until(self, marker: bytes) -> bytes:
        """Everything up to and with `marker`."""
        searched_to = self._consumed
        while (found := self.received.find(marker, searched_to)) < 0:
            searched_to = max(self._consumed, len(self.received) - len(marker) + 1)
            self._receive_some()
        return self._take(found + len(marker) - self._consumed)

    def receive_to_end(self) -> bytes:
        """Everything up to the peer's FIN. Raises ConnectionResetError on RST."""
        try:
            while True:
                self._receive_some()
        except PeerClosed:
            return self._take(len(self.received) - self._consumed)

    def expect_end(self) -> None:
        """Asserts that the peer ends the connection, by FIN or RST, and sends nothing more."""
        try:
            rest = self.receive_to_end()
        except ConnectionResetError:
            rest = self.unread
        assert rest == b"", f"expected the end of the connection, got {rest[:200]!r}"

    def is_silent_for(self, seconds: float) -> bool:
        """Whether neither bytes nor the end arrive for `seconds`.

        For the tests that must show that something does not happen; they cannot do without a wait.
        """
        if self.unread:
            return False
        readable, _, _ = select.select([self.sock], [], [], seconds)
        return not readable

    def _receive_some(self) -> None:
        data = self.sock.recv(_RECEIVE_BYTES)
        if not data:
            raise PeerClosed(self.unread)
        self.received += data

    def _take(self, count: int) -> bytes:
        taken = bytes(self.received[self._consumed : self._consumed + count])
        self._consumed += count
        return taken

    # Receiving messages

    def receive_head(self) -> bytes:
        return self.receive_until(b"\r\n\r\n")

    def receive_request_head(self) -> Request:
        """A request without its body, which stays in the stream."""
        head = self.receive_head()
        match = _REQUEST_LINE.fullmatch(head.split(b"\r\n", 1)[0])
        if not match:
            raise MalformedMessage(f"not a request line: {head[:200]!r}")
        method, target, version = (part.decode("latin-1") for part in match.groups())
        return Request(head, version, _parse_fields(head), b"", [], method, target)

    def receive_request(self) -> Request:
        """A whole request with its body."""
        request = self.receive_request_head()
        body, trailers = self.receive_framed_body(request) or (b"", [])
        return replace(request, body=body, trailers=trailers)

    def receive_response_head(self) -> Response:
        """A response head, interim or final, without a body."""
        head = self.receive_head()
        match = _STATUS_LINE.fullmatch(head.split(b"\r\n", 1)[0])
        if not match:
            raise MalformedMessage(f"not a status line: {head[:200]!r}")
        version, status, reason = (part.decode("latin-1") for part in match.groups())
        return Response(head, version, _parse_fields(head), b"", [], int(status), reason)

    def receive_response(self, method: str = "GET") -> Response:
        """A final response with its body, and the interim ones before it (RFC 9112 §6.3)."""
        interim: list[Response] = []
        while (final := self.receive_response_head()).status < 200 and final.status != 101:
            interim.append(final)
        body, trailers = self._receive_response_body(final, method)
        return replace(final, body=body, trailers=trailers, interim=interim)

    def _receive_response_body(self, response: Response, method: str) -> tuple[bytes, Fields]:
        if method == "HEAD" or response.status in (101, 204, 304):
            return b"", []
        framed = self.receive_framed_body(response)
        return framed if framed is not None else (self.receive_to_end(), [])

    def receive_framed_body(self, message: Message) -> tuple[bytes, Fields] | None:
        """The body by Transfer-Encoding or Content-Length; None when there is neither."""
        length = message.get("Content-Length")
        if message.get("Transfer-Encoding") is not None:
            if not message.is_chunked or length is not None:
                raise MalformedMessage(f"ambiguous framing: {message.head!r}")
            return self._receive_chunked_body()
        if length is None:
            return None
        if not re.fullmatch("[0-9]+", length):
            raise MalformedMessage(f"not a length: {length!r}")
        return self.receive_exactly(int(length)), []

    def _receive_chunked_body(self) -> tuple[bytes, Fields]:
        body = bytearray()
        while chunk := self.receive_chunk():
            body += chunk
        return bytes(body), self._receive_trailers()

    def receive_chunk(self) -> bytes:
        """One chunk's data; empty for the last chunk, whose trailer section is not read."""
        line = self.receive_until(b"\r\n")[:-2]
        match = _CHUNK_LINE.fullmatch(line)
        if not match:
            raise MalformedMessage(f"not a chunk size: {line[:100]!r}")
        size = int(match.group(1), 16)
        data = self.receive_exactly(size)
        if size and self.receive_exactly(2) != b"\r\n":
            raise MalformedMessage("a chunk does not end with CRLF")
        return data

    def _receive_trailers(self) -> Fields:
        trailers: Fields = []
        while (line := self.receive_until(b"\r\n")[:-2]) != b"":
            trailers.append(_parse_field_line(line))
        return trailers


def _parse_fields(head: bytes) -> Fields:
    lines = head[: -len(b"\r\n\r\n")].split(b"\r\n")[1:]
    return [_parse_field_line(line) for line in lines]


def _parse_field_line(line: bytes) -> tuple[str, str]:
    match = _FIELD_LINE.fullmatch(line)
    if not match:
        raise MalformedMessage(f"not a field line: {line[:200]!r}")
    return match.group(1).decode("latin-1"), match.group(2).decode("latin-1")


def connect(port: int, host: str = "127.0.0.1", timeout_s: float = PATIENCE_S) -> Connection:
    """A client's connection to `host:port`."""
    return Connection(socket.create_connection((host, port), timeout_s), timeout_s)


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return False
    return True
