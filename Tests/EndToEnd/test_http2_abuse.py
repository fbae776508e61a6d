"""Clients that abuse HTTP/2: refused cheaply, visible in the log, and nobody else's business."""

from __future__ import annotations

import socket
import ssl

import h2.events
import pytest

from harness import processes
from harness.backends import BackendConnection
from harness.balancer import Balancer
from harness.certificates import Authority
from harness.http2 import Http2Client
from harness.stage import Stage
from harness.tls import Front
from harness.waiting import PATIENCE_S, wait_until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
UNKNOWN = 0xF0
END_STREAM, END_HEADERS = 1, 4
ENHANCE_YOUR_CALM = 11
GET = bytes([0x82, 0x86, 0x84, 0x01, 1]) + b"x"
"""A request's fields by the static table, `:authority` x."""


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def request(stream: int, flags: int = END_HEADERS | END_STREAM, fields: bytes = GET) -> bytes:
    return frame(HEADERS, flags, stream, fields)


class Attacker:
    """Writes frames for as long as they are taken, and reads what comes back."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.sock.settimeout(PATIENCE_S)
        self.received = b""
        self.sock.sendall(PREFACE + frame(SETTINGS))

    def flood(self, *pieces: bytes) -> None:
        for piece in pieces:
            try:
                self.sock.sendall(piece)
            except OSError:
                return
            self.look()

    def look(self) -> None:
        """Reads what is there, so that answers do not pile up."""
        self.sock.setblocking(False)
        try:
            while data := self.sock.recv(1 << 16):
                self.received += data
        except OSError:
            pass
        self.sock.settimeout(PATIENCE_S)

    def goaways(self) -> list[int]:
        """Error codes, once the connection has ended."""
        try:
            while data := self.sock.recv(1 << 16):
                self.received += data
        except OSError:
            pass
        codes, at = [], 0
        while at + 9 <= len(self.received):
            length = int.from_bytes(self.received[at : at + 3], "big")
            if self.received[at + 3] == GOAWAY:
                codes.append(int.from_bytes(self.received[at + 13 : at + 17], "big"))
            at += 9 + length
        return codes


@pytest.fixture(scope="module")
def balancer(shared_stage: Stage) -> Balancer:
    def waits(connection: BackendConnection) -> None:
        connection.receive_request_head()
        connection.wait_for_end()

    return shared_stage.balancer(shared_stage.backend(waits))


def attack(stage: Stage, balancer: Balancer, *pieces: bytes) -> list[int]:
    attacker = Attacker(balancer.port)
    stage.keep(attacker.sock)
    attacker.flood(*pieces)
    return attacker.goaways()


FLOODS = {
    "ping": frame(PING, 0, 0, b"12345678") * 100,
    "settings": frame(SETTINGS, 0, 0, b"\0\3\0\0\0\1") * 100,
    "table size": (frame(SETTINGS, 0, 0, b"\0\1\0\0\0\0") + frame(SETTINGS, 0, 0, b"\0\1\0\0\x10\0")) * 50,
    "priority": frame(PRIORITY, 0, 1, number(0) + b"\x10") * 1000,
    "window update": frame(WINDOW_UPDATE, 0, 0, number(1)) * 1000,
    "unknown": frame(UNKNOWN) * 1000,
    "empty data": frame(DATA, 0, 1) * 100,
}


@pytest.mark.parametrize("kind", FLOODS)
def test_flood_of_frames_that_carry_nothing(stage: Stage, balancer: Balancer, kind: str) -> None:
    first = request(1, END_HEADERS) if kind == "empty data" else b""
    assert attack(stage, balancer, first, *[FLOODS[kind]] * 100) == [ENHANCE_YOUR_CALM]


def streams(count: int) -> range:
    return range(1, 2 * count, 2)


def test_rapid_reset(stage: Stage, balancer: Balancer) -> None:
    pieces = [request(n) + frame(RST_STREAM, 0, n, number(8)) for n in streams(1500)]
    assert attack(stage, balancer, *[b"".join(pieces[at : at + 100]) for at in range(0, 1500, 100)]) == [
        ENHANCE_YOUR_CALM
    ]


@pytest.mark.parametrize(
    "provocation",
    [
        lambda n: request(n, END_HEADERS) + frame(WINDOW_UPDATE, 0, n, number(0x7FFFFFFF)),
        lambda n: request(n, END_HEADERS, GET + b"\x0f\x0d\x011") + frame(DATA, 0, n, b"ab"),
        lambda n: request(n, fields=GET + b"\0\x01A\x01b"),
        lambda n: request(n, END_HEADERS),
    ],
    ids=["window overflow", "longer than announced", "malformed", "over the limit"],
)
def test_resets_that_the_client_provokes(stage: Stage, balancer: Balancer, provocation: object) -> None:
    pieces = [provocation(n) for n in streams(1500)]  # type: ignore[operator]
    assert attack(stage, balancer, *[b"".join(pieces[at : at + 50]) for at in range(0, 1500, 50)]) == [
        ENHANCE_YOUR_CALM
    ]


def test_header_block_that_unfolds(stage: Stage, balancer: Balancer) -> None:
    field = b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000
    assert attack(stage, balancer, request(1, fields=GET + field + b"\xbe" * 10_000)) == [ENHANCE_YOUR_CALM]


def test_header_block_in_too_many_frames(stage: Stage, balancer: Balancer) -> None:
    assert attack(stage, balancer, request(1, END_STREAM), *[frame(CONTINUATION, 0, 1)] * 50) == [ENHANCE_YOUR_CALM]


def test_header_block_that_does_not_end(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), "--request-head-timeout", "0.2")
    assert attack(stage, balancer, request(1, END_STREAM)) == [ENHANCE_YOUR_CALM]


def test_flood_is_logged_and_others_are_served(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend())
    client = stage.keep(Http2Client(balancer.port))
    assert client.get().status == 200
    attack(stage, balancer, *[FLOODS["unknown"]] * 100)
    assert client.get().status == 200
    wait_until(lambda: "connection is ended" in balancer.log(), "the line in the log")
    assert "too many frames that carry nothing" in balancer.log()


def test_clients_that_read_nothing_do_not_fill_the_memory(stage: Stage) -> None:
    """Their windows are closed: what they ask for stays with the backend, and others are served."""
    backend = stage.nginx(big=bytes(60_000))
    balancer = stage.balancer(backend)
    worker = balancer.worker_pid()
    closed = frame(SETTINGS, 0, 0, b"\0\4" + number(0))
    get = bytes([0x82, 0x86, 0x44, 4]) + b"/big" + bytes([0x41, 1]) + b"x"
    before = processes.rss_kib(worker)
    processes.reset_peak_rss(worker)
    for _ in range(16):
        attacker = Attacker(balancer.port)
        stage.keep(attacker.sock)
        attacker.sock.sendall(closed + b"".join(request(2 * n + 1, fields=get) for n in range(128)))
        assert len(balancer.get("/big").body) == 60_000
    wait_until(lambda: "too much memory held" in balancer.log(), "the end of some connections")
    assert processes.peak_rss_kib(worker) - before < 64 * 1024


# What is told of requests that were not served


def test_malformed_request_is_in_the_trace(stage: Stage) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=collector)
    client = stage.keep(Http2Client(balancer.port, is_strict=False))
    fields = [*Http2Client.request_fields("/odd?a=b"), ("Upper", "1")]
    assert client.answer(client.open(fields)).reset == 1
    span = collector.wait_for_tree().span
    assert span.error_type == "protocol_error"
    assert span.attributes["http.url"] == "http://example.test/odd?a=b"
    assert span.attributes["http.flavor"] == "2"
    assert "http.status_code" not in span.attributes


def test_request_that_is_reset_at_once_is_in_the_trace(stage: Stage) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=collector)
    client = stage.keep(Http2Client(balancer.port))
    client.wait_for(h2.events.RemoteSettingsChanged)
    stream = client.h2.get_next_available_stream_id()
    client.h2.send_headers(stream, client.request_fields("/gone"), end_stream=True)
    client.h2.reset_stream(stream, 8)
    client.flush()
    span = collector.wait_for_tree().span
    assert (span.error_type, span.attributes["http.url"]) == ("client_closed", "http://example.test/gone")


def test_body_that_belies_its_length_is_a_protocol_error(stage: Stage) -> None:
    def waits(connection: BackendConnection) -> None:
        connection.receive_request_head()
        connection.wait_for_end()

    collector = stage.collector()
    balancer = stage.balancer(stage.backend(waits), collector=collector)
    client = stage.keep(Http2Client(balancer.port, is_strict=False))
    stream = client.h2.get_next_available_stream_id()
    client.send_fields(stream, [*client.request_fields(method="POST"), ("content-length", "3")])
    client.send_frame(DATA, 0, stream, b"four")
    assert client.answer(stream).reset == 1
    assert collector.wait_for_tree().span.error_type == "protocol_error"


# TLS


def test_what_was_agreed_on_is_spoken(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> None:
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    certificate = authority.issue("DNS:a.test", "IP:127.0.0.1")
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    context = front.context()
    context.set_alpn_protocols(["h2"])
    connection = front.connect(context=context)
    assert isinstance(connection.sock, ssl.SSLSocket) and connection.sock.selected_alpn_protocol() == "h2"
    connection.sock.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    received = b""
    try:
        while data := connection.sock.recv(65536):
            received += data
    except OSError:
        pass
    connection.close()
    assert b"HTTP/1.1" not in received
