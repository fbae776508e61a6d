"""Backends that want HTTP/1.1 although HTTP/2 was agreed on, and upgrades where HTTP/2 is spoken."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable

import h2.events
import h2.settings
import pytest
from websockets.sync.client import connect as websocket_connect
from websockets.typing import Subprotocol

from harness import message
from harness.backends import BackendConnection, hello, serve
from harness.certificates import Authority, Certificate
from harness.http2 import Http2Backend, Http2BackendConnection, Http2Client, Http2Script, serve_http2
from harness.servers import Hypercorn
from harness.stage import Stage
from harness.waiting import PATIENCE_S
from harness.wire import Connection, PeerClosed, Request

CONNECT_PROTOCOL = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
HTTP_1_1_REQUIRED = 13


class TwoTongues(Http2Backend):
    """Speaks what ALPN comes to, or in cleartext what the first bytes say; keeps what HTTP/1.1 connections it had."""

    def __init__(
        self, http1: Callable[[BackendConnection], None], *scripts: Http2Script, certificate: Certificate | None = None
    ) -> None:
        self.http1 = http1
        self.http1_connections: list[BackendConnection] = []
        self.http1_requests: list[Request] = []
        super().__init__(*scripts, certificate=certificate)
        if self.context:
            self.context.set_alpn_protocols(["h2", "http/1.1"])

    def _run(self, script: Http2Script, connection: Http2BackendConnection) -> None:
        if not self._shake_hands(connection) or self._speaks_http2(connection.sock):
            return super()._run(script, connection)
        other = BackendConnection(connection.sock, self, len(self.http1_connections))
        self.http1_connections.append(other)
        try:
            self.http1(other)
        except (OSError, PeerClosed):
            other.close()
        return None

    def note(self, request: Request) -> None:
        self.http1_requests.append(request)

    @staticmethod
    def _speaks_http2(sock: socket.socket) -> bool:
        if isinstance(sock, ssl.SSLSocket):
            return sock.selected_alpn_protocol() == "h2"
        return sock.recv(3, socket.MSG_PEEK) == b"PRI"


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("DNS:localhost", "IP:127.0.0.1")


@pytest.fixture(params=["tls", "clear"])
def identity(request: pytest.FixtureRequest, certificate: Certificate) -> Certificate | None:
    return certificate if request.param == "tls" else None


def resets(connection: Http2BackendConnection, stream: int) -> None:
    connection.reset(stream, HTTP_1_1_REQUIRED)


def leaves(connection: Http2BackendConnection, stream: int) -> None:
    connection.goaway(0, HTTP_1_1_REQUIRED)


def refusing(play: Callable[[Http2BackendConnection, int], None]) -> Http2Script:
    return serve_http2(lambda connection, stream, fields, body: play(connection, stream))


def echo_http1(connection: BackendConnection) -> None:
    while True:
        connection.send(message.response(connection.receive_request().body))


@pytest.mark.parametrize(
    ("play", "event"), [(resets, "stream_reset"), (leaves, "goaway_received")], ids=["reset", "goaway"]
)
def test_backend_that_wants_http1_gets_it(
    stage: Stage, authority: Authority, identity: Certificate | None, play: Callable[..., None], event: str
) -> None:
    backend = stage.keep(TwoTongues(echo_http1, refusing(play), certificate=identity))
    collector = stage.collector()
    balancer = stage.balancer(backend, "--upstream-ca", str(authority.path), collector=collector)
    for body in (b"first", b"second"):
        answer = balancer.exchange(message.request("/", method="POST", body=body))
        assert (answer.status, answer.body) == (200, body)
    first, second = collector.wait_for_trees(2)
    making = ["tcp_connect INTERNAL", *(["tls_handshake INTERNAL"] if identity else [])]
    http1 = ["  backend_request CLIENT", "  response_streaming INTERNAL"]
    assert first.outline() == [
        "proxy_request SERVER",
        "  backend_selection INTERNAL",
        "  backend_request_h2 CLIENT",
        "    pool_acquire INTERNAL",
        *[f"    {span}" for span in [*making, "h2_handshake INTERNAL"]],
        "  backend_selection INTERNAL",
        "  backend_connection INTERNAL",
        "    pool_acquire INTERNAL",
        *[f"    {span}" for span in making],
        *http1,
    ]
    attempt = first.one("backend_request_h2")
    assert attempt.event(event).attributes["h2.error_code"] == "HTTP_1_1_REQUIRED"
    retry = {"retry.reason": "http_1_1_required", "retry.attempt": 1}
    assert attempt.event("retry_triggered").attributes == retry
    assert first.span.event("retry_triggered").attributes == retry
    if identity:
        assert [span.attributes["tls.alpn"] for span in first.all("tls_handshake")] == ["h2", "http/1.1"]
    connection = ["  backend_connection INTERNAL", "    pool_acquire INTERNAL"]
    assert second.outline() == ["proxy_request SERVER", "  backend_selection INTERNAL", *connection, *http1]
    assert (len(backend.connections), len(backend.http1_connections)) == (2, 1)
    assert balancer.log().count("wants HTTP/1.1") == 1


def test_everybody_on_the_connection_goes_over(stage: Stage) -> None:
    def script(connection: Http2BackendConnection) -> None:
        connection.start({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 4})
        connection.next_request(count=4)
        for stream in (1, 3, 5, 7):
            connection.reset(stream, HTTP_1_1_REQUIRED)
        connection.wait_for_end()

    backend = stage.keep(TwoTongues(serve(hello), script))
    balancer = stage.balancer(backend, "--upstream-h2-max-connections", "1")
    client = stage.keep(Http2Client(balancer.port))
    streams = [client.request(f"/{n}", method="DELETE") for n in range(10)]
    assert [client.answer(stream).body for stream in streams] == [f"/{n}".encode() for n in range(10)]


def test_where_http1_is_not_offered_it_is_502(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    backend = stage.keep(TwoTongues(serve(hello), refusing(resets), certificate=certificate))
    balancer = stage.balancer(backend, "--upstream-ca", str(authority.path), "--upstream-alpn", "h2")
    assert balancer.get().status == 502
    assert not backend.http1_connections


# Upgrades


def websocket_over_http1(connection: BackendConnection) -> None:
    request = connection.receive_request()
    assert request.get("Upgrade")
    fields = ("Connection: Upgrade", f"Upgrade: {request.get('Upgrade')}", "Sec-WebSocket-Accept: x")
    connection.send(message.response_head(*fields, status="101 Switching Protocols"))
    connection.send(connection.receive_exactly(4))
    connection.wait_for_end()


def test_upgrade_to_a_tls_backend_gets_http1(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    """Beside the connection that carries HTTP/2."""
    backend = stage.keep(TwoTongues(websocket_over_http1, serve_http2(), certificate=certificate))
    collector = stage.collector()
    balancer = stage.balancer(backend, "--upstream-ca", str(authority.path), collector=collector)
    assert balancer.get("/a").body == b"/a"
    client: Connection = stage.client(balancer)
    client.send(message.request("/", "Connection: Upgrade", "Upgrade: raw"))
    assert client.receive_response().status == 101
    client.send(b"ping")
    assert client.receive_exactly(4) == b"ping"
    client.close()
    assert balancer.get("/b").body == b"/b"
    trees = collector.wait_for_trees(3)
    upgraded = next(tree for tree in trees if tree.span.attributes["http.status_code"] == 101)
    assert upgraded.one("tls_handshake").attributes["tls.alpn"] == "http/1.1"
    assert not upgraded.all("backend_request_h2")
    assert len(backend.connections) == 2


def test_websocket_of_an_http2_client_to_a_tls_backend(
    stage: Stage, authority: Authority, certificate: Certificate
) -> None:
    backend = stage.keep(TwoTongues(websocket_over_http1, serve_http2(), certificate=certificate))
    balancer = stage.balancer(backend, "--upstream-ca", str(authority.path))
    client = stage.keep(Http2Client(balancer.port))
    assert client.get("/a").body == b"/a"
    stream = open_websocket(client)
    head = client.wait_for(h2.events.ResponseReceived, stream)
    assert dict(head.headers)[":status"] == "200"
    client.send_data(stream, b"ping")
    assert client.wait_for(h2.events.DataReceived, stream).data == b"ping"


def test_connections_of_a_tls_backend_may_differ_in_extended_connect(
    stage: Stage, authority: Authority, certificate: Certificate
) -> None:
    """The first, which has room again, does not take it; what the second one said is known of the backend."""
    is_known = threading.Event()

    def without(connection: Http2BackendConnection) -> None:
        connection.start({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        stream = connection.next_request().stream_id
        assert is_known.wait(PATIENCE_S)
        connection.answer(stream, b"first")
        connection.wait_for_end()

    def with_connect(connection: Http2BackendConnection) -> None:
        connection.start({CONNECT_PROTOCOL: 1})
        connection.answer(connection.next_request().stream_id, b"second")
        connection.wait_for_end()

    backend = stage.keep(TwoTongues(websocket_over_http1, without, with_connect, certificate=certificate))
    balancer = stage.balancer(backend, "--upstream-ca", str(authority.path))
    client = stage.keep(Http2Client(balancer.port))
    first, second = client.request("/a"), client.request("/b")
    assert client.answer(second).body == b"second"
    is_known.set()
    assert client.answer(first).body == b"first"
    stream = open_websocket(client)
    assert dict(client.wait_for(h2.events.ResponseReceived, stream).headers)[":status"] == "200"
    client.send_data(stream, b"ping")
    assert client.wait_for(h2.events.DataReceived, stream).data == b"ping"
    assert len(backend.http1_connections) == 1


def open_websocket(client: Http2Client) -> int:
    fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
    stream = client.h2.get_next_available_stream_id()
    client.wait_for(h2.events.RemoteSettingsChanged)
    client.send_fields(stream, client.request_fields("/chat", *fields, method="CONNECT"))
    return stream


class WebSocketServer:
    """An HTTP/2 server with extended CONNECT; what comes through a WebSocket goes back."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.ended = threading.Event()

    def __call__(self, connection: Http2BackendConnection) -> None:
        connection.start({CONNECT_PROTOCOL: 1})
        stream = connection.next_request().stream_id
        self.fields = dict(connection.all(h2.events.RequestReceived)[0].headers)
        connection.send_fields(stream, [(":status", "200"), ("sec-websocket-protocol", "p")])
        count = 0
        while True:
            data = connection.all(h2.events.DataReceived, stream)
            for event in data[count:]:
                connection.send_data(stream, event.data)
            count = len(data)
            if connection.all(h2.events.StreamEnded, stream) or connection.all(h2.events.StreamReset, stream):
                break
            connection.receive()
        if connection.all(h2.events.StreamEnded, stream):
            connection.send_data(stream, b"", ends=True)
        self.ended.set()
        connection.wait_for_end()


def test_websocket_by_extended_connect(stage: Stage) -> None:
    server = WebSocketServer()
    backend = stage.keep(Http2Backend(server))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    client = stage.client(balancer)
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13")
    client.send(message.request("/chat?x", *upgrade, "Origin: http://a"))
    answer = client.receive_response()
    assert (answer.status, answer.get("Upgrade")) == (101, "websocket")
    # RFC 6455 §1.3 has this pair.
    assert answer.get("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert answer.get("Sec-WebSocket-Protocol") == "p"
    for piece in (b"hello", b"x" * 300_000):
        client.send(piece)
        assert client.receive_exactly(len(piece)) == piece
    client.half_close()
    assert client.receive_to_end() == b""
    names = (":method", ":protocol", ":scheme", ":path", ":authority", "sec-websocket-version", "origin")
    values = ("CONNECT", "websocket", "http", "/chat?x", "example.test", "13", "http://a")
    assert tuple(server.fields[name] for name in names) == values
    assert not {"sec-websocket-key", "upgrade", "connection"} & set(server.fields)
    tree = collector.wait_for_tree()
    tree.assert_sound()
    attempt = tree.one("backend_request_h2")
    assert (tree.span.attributes["http.status_code"], attempt.attributes["http.status_code"]) == (101, 200)
    assert not attempt.events


def test_websocket_from_http2_to_http2(stage: Stage) -> None:
    server = WebSocketServer()
    collector = stage.collector()
    balancer = stage.balancer(stage.keep(Http2Backend(server)), collector=collector)
    client = stage.keep(Http2Client(balancer.port))
    stream = open_websocket(client)
    assert dict(client.wait_for(h2.events.ResponseReceived, stream).headers)[":status"] == "200"
    client.send_data(stream, b"ping")
    assert client.wait_for(h2.events.DataReceived, stream).data == b"ping"
    client.reset(stream)
    assert server.ended.wait(10)
    tree = collector.wait_for_tree()
    tree.assert_sound()
    attempt = tree.one("backend_request_h2")
    assert (tree.span.attributes["http.status_code"], attempt.attributes["http.status_code"]) == (200, 200)


def test_websockets_library_through_extended_connect(stage: Stage) -> None:
    """Frames of a real client come back as they are, masked: the server only mirrors."""
    balancer = stage.balancer(stage.keep(Http2Backend(WebSocketServer())))
    protocols = [Subprotocol("p")]
    with websocket_connect(f"ws://127.0.0.1:{balancer.port}/", close_timeout=0.1, subprotocols=protocols) as websocket:
        assert websocket.response is not None and websocket.response.status_code == 101


def test_connection_that_has_carried_a_tunnel_has_served(stage: Stage) -> None:
    """When it closes under a GET, that is tried again, as on any connection that was in use before."""

    def tunnel_then_close(connection: Http2BackendConnection) -> None:
        connection.start({CONNECT_PROTOCOL: 1})
        connection.send_fields(connection.next_request().stream_id, [(":status", "200")])
        connection.next_request(count=2)
        connection.close()

    backend = stage.keep(Http2Backend(tunnel_then_close, serve_http2()))
    balancer = stage.balancer(backend)
    client = stage.client(balancer)
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    client.send(message.request("/chat", *upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
    assert client.receive_response().status == 101
    assert balancer.get("/x").status == 200


@pytest.mark.parametrize("scheme", ["h2c://", "https://"])
def test_real_client_and_real_server(stage: Stage, authority: Authority, certificate: Certificate, scheme: str) -> None:
    """Over https the first goes over HTTP/1.1; once the backend's SETTINGS are known, extended CONNECT is used."""
    pair = certificate if scheme == "https://" else None
    server = stage.keep(Hypercorn(stage.folder(), {"file": b"content"}, pair, scheme))
    collector = stage.collector()
    balancer = stage.balancer(server, "--upstream-ca", str(authority.path), collector=collector)
    for _ in range(2):
        # hypercorn leaves the stream open behind its Close frame, and the client waits that long for an end.
        with websocket_connect(f"ws://127.0.0.1:{balancer.port}/chat", max_size=None, close_timeout=0.05) as websocket:
            for text in ("hello", "", "x" * 500_000):
                websocket.send(text)
                assert websocket.recv(timeout=20) == text
        assert websocket.close_code == 1000
        assert balancer.get("/file").body == b"content"
    trees = collector.wait_for_trees(4)
    tunnels = [tree for tree in trees if tree.span.attributes["http.status_code"] == 101]
    over_http2 = [bool(tree.all("backend_request_h2")) for tree in tunnels]
    assert over_http2 == [scheme == "h2c://", True]


def test_tls_backend_known_to_take_websockets_gets_them_on_its_connection(
    stage: Stage, authority: Authority, certificate: Certificate
) -> None:
    def script(connection: Http2BackendConnection) -> None:
        connection.start({CONNECT_PROTOCOL: 1})
        connection.answer(connection.next_request().stream_id, b"ok")
        stream = connection.next_request(count=2).stream_id
        connection.send_fields(stream, [(":status", "200")])
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(script, certificate=certificate))
    balancer = stage.balancer(backend, "--upstream-ca", str(authority.path))
    client = stage.keep(Http2Client(balancer.port))
    assert client.get().body == b"ok"
    stream = open_websocket(client)
    assert dict(client.wait_for(h2.events.ResponseReceived, stream).headers)[":status"] == "200"
    assert len(backend.connections) == 1


def test_backend_without_extended_connect_is_501(stage: Stage) -> None:
    backend = stage.keep(Http2Backend())
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    client = stage.client(balancer)
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    for _ in range(2):
        client.send(message.request("/", *upgrade))
        assert client.receive_response().status == 501
    trees = collector.wait_for_trees(2)
    assert {tree.span.error_type for tree in trees} == {"upgrade_unsupported"}
    assert [len(tree.outline()) for tree in trees] == [6, 4]
    assert not backend.requests
    assert balancer.get("/x").body == b"/x"


def test_refused_websocket_is_an_ordinary_answer(stage: Stage) -> None:
    def script(connection: Http2BackendConnection) -> None:
        connection.start({CONNECT_PROTOCOL: 1})
        connection.answer(connection.next_request().stream_id, b"who are you", status=403)
        connection.wait_for_end()

    balancer = stage.balancer(stage.keep(Http2Backend(script)))
    client = stage.client(balancer)
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    client.send(message.request("/", *upgrade))
    answer = client.receive_response()
    assert (answer.status, answer.body) == (403, b"who are you")


def test_other_upgrades_are_not_heard_of_in_cleartext_http2(stage: Stage) -> None:
    backend = stage.keep(Http2Backend())
    client = stage.client(stage.balancer(backend))
    client.send(message.request("/x", "Connection: Upgrade", "Upgrade: raw"))
    assert client.receive_response().body == b"/x"
    assert "upgrade" not in backend.requests[0]


def test_ignored_upgrade_is_no_open_websocket(stage: Stage) -> None:
    """An HTTP/2 client would take any 2xx for one."""
    balancer = stage.balancer(stage.backend(serve(hello)))
    client = stage.keep(Http2Client(balancer.port))
    stream = open_websocket(client)
    assert dict(client.wait_for(h2.events.ResponseReceived, stream).headers)[":status"] == "501"
