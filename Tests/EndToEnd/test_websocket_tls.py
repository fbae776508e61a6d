"""WebSocket over TLS and over HTTP/2 (RFC 8441), with the websockets library at the backend."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import h2.events
import pytest
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect as websocket_connect
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as websocket_serve

from harness import message
from harness.accepting import tls_context
from harness.backends import BackendConnection, Script
from harness.certificates import Authority, Certificate
from harness.http2 import Http2Client
from harness.stage import Stage
from harness.tls import Front
from harness.waiting import PATIENCE_S, wait_until

NO_ERROR, CANCEL = 0, 8


def echo_messages(connection: ServerConnection) -> None:
    for received in connection:
        connection.send(received)


@pytest.fixture(scope="module", params=["ws", "wss"])
def front(request: pytest.FixtureRequest, shared_stage: Stage, authority: Authority) -> Iterator[Front]:
    """A balancer in front of an echo server, which it reaches in cleartext or over TLS."""
    certificate: Certificate = authority.issue("DNS:localhost", "IP:127.0.0.1")
    context = tls_context(certificate, "http/1.1") if request.param == "wss" else None
    with websocket_serve(echo_messages, "127.0.0.1", 0, max_size=None, ssl=context) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"{'https://' if context else ''}127.0.0.1:{server.socket.getsockname()[1]}"
        flags = [*certificate.server_flags, "--upstream-ca", str(authority.path)]
        front = Front(shared_stage, [address], authority, *flags)
        yield front
        front.balancer.begin_close()
        server.shutdown()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_messages_over_http1(front: Front, scheme: str) -> None:
    port = front.port if scheme == "wss" else front.balancer.port
    context = front.context() if scheme == "wss" else None
    with websocket_connect(f"{scheme}://127.0.0.1:{port}/", ssl=context, max_size=None, close_timeout=10) as client:
        for size in (0, 1, 20_000, 1_000_000):
            client.send(b"x" * size)
            assert client.recv(timeout=20) == b"x" * size
    assert client.close_code == 1000


def open_websocket(client: Http2Client) -> int:
    """The stream of a tunnel that is open."""
    stream = client.h2.get_next_available_stream_id()
    fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
    client.send_fields(stream, client.request_fields("/chat", *fields, method="CONNECT"))
    assert dict(client.wait_for(h2.events.ResponseReceived, stream).headers)[":status"] == "200"
    return stream


@pytest.mark.parametrize("is_secure", [False, True])
def test_messages_over_http2(front: Front, is_secure: bool) -> None:
    context = front.context()
    context.set_alpn_protocols(["h2"])
    sock = front.connect("localhost", context).sock if is_secure else None
    client = Http2Client(front.balancer.port, sock=sock)
    client.wait_for(h2.events.RemoteSettingsChanged)
    stream = open_websocket(client)
    expected = b""
    for size in (1, 20_000, 300_000):
        client.send_data(stream, Frame(Opcode.BINARY, b"x" * size).serialize(mask=True))
        expected += Frame(Opcode.BINARY, b"x" * size).serialize(mask=False)
        client.wait_until(lambda whole=expected: client.so_far(stream).body == whole)  # type: ignore[misc]
    goodbye = Frame(Opcode.CLOSE, (1000).to_bytes(2, "big"))
    client.send_data(stream, goodbye.serialize(mask=True))
    answer = client.answer(stream)
    assert answer.is_complete, "the library ends TLS without close_notify"
    assert answer.body == expected + goodbye.serialize(mask=False)
    client.close()


def test_client_that_leaves_behind_the_end_of_the_backend_ends_the_tunnel(stage: Stage) -> None:
    """The stream is closed for sending already; nothing but the end of the connection tells."""

    def ends_and_waits(connection: BackendConnection) -> None:
        connection.receive_request_head()
        fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: x")
        connection.send(message.response_head(*fields, status="101 Switching Protocols"))
        connection.half_close()
        connection.wait_for_end()

    backend = stage.backend(ends_and_waits)
    log, collector = stage.directory / "access.log", stage.collector()
    client = Http2Client(stage.balancer(backend, "--access-log", str(log), collector=collector).port)
    client.wait_for(h2.events.RemoteSettingsChanged)
    stream = open_websocket(client)
    assert client.answer(stream).is_complete
    client.close()
    assert backend.connections[0].ended.wait(PATIENCE_S)
    tree = collector.wait_for_tree()
    assert tree.span.attributes["http.status_code"] == 200, "what the client got"
    assert tree.one("backend_request").attributes["http.status_code"] == 101
    wait_until(lambda: " status=200 " in log.read_text(), "the line of the access log")


def tunnel(stage: Stage, play: Script, *flags: str) -> tuple[Http2Client, int]:
    """A tunnel to a backend that goes on with `play`."""

    def script(connection: BackendConnection) -> None:
        connection.receive_request_head()
        fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: x")
        connection.send(message.response_head(*fields, status="101 Switching Protocols"))
        play(connection)

    client = stage.keep(Http2Client(stage.balancer(stage.backend(script), *flags).port))
    client.wait_for(h2.events.RemoteSettingsChanged)
    return client, open_websocket(client)


def test_backend_that_resets_the_tunnel_cancels_the_stream(stage: Stage) -> None:
    """RFC 8441 §5: an end is END_STREAM, RST of the connection is RST_STREAM with CANCEL."""

    def resets(connection: BackendConnection) -> None:
        assert connection.receive_exactly(1) == b"x"
        connection.reset()

    client, stream = tunnel(stage, resets)
    client.send_data(stream, b"x")
    assert client.answer(stream).reset == CANCEL


def test_idle_tunnel_ends_in_order(stage: Stage) -> None:
    client, stream = tunnel(stage, BackendConnection.wait_for_end, "--tunnel-idle-timeout", "0.2")
    assert client.answer(stream).is_complete
    assert client.wait_for(h2.events.StreamReset, stream).error_code == NO_ERROR


def test_idle_tunnel_whose_client_takes_nothing_is_cancelled(stage: Stage) -> None:
    def talks(connection: BackendConnection) -> None:
        connection.send(bytes(100_000))
        connection.wait_for_end()

    client, stream = tunnel(stage, talks, "--tunnel-idle-timeout", "0.2")
    client.holds_window = True
    assert client.answer(stream).reset == CANCEL
