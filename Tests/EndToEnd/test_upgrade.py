"""Upgrade: a tunnel after 101, an ordinary response otherwise (RFC 9110 §7.8, RFC 6455)."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.sync.client import connect as websocket_connect
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as websocket_serve

from harness import message
from harness.backends import BackendConnection, Script, hello, serve
from harness.balancer import Balancer
from harness.stage import Stage
from harness.wire import Connection

ASKING = message.request("/tunnel", "Connection: Upgrade", "Upgrade: raw")
SWITCHING = message.response_head("Connection: Upgrade", "Upgrade: raw", status="101 Switching Protocols")


def switches_then(play: Script) -> Script:
    """Accepts the upgrade; `play` is the backend's side of the tunnel."""

    def script(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(SWITCHING)
        play(connection)

    return script


def tunnel(stage: Stage, play: Script, *flags: str) -> Connection:
    """A client whose tunnel is open."""
    client = stage.client(stage.balancer(stage.backend(switches_then(play)), *flags))
    client.send(ASKING)
    assert client.receive_response().status == 101
    return client


@contextmanager
def websocket_backend() -> Iterator[str]:
    """A WebSocket server that sends every message back; yields its address."""

    def echo(connection: ServerConnection) -> None:
        for received in connection:
            connection.send(received)

    with websocket_serve(echo, "127.0.0.1", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(10)


@pytest.fixture
def websocket_balancer(stage: Stage) -> Iterator[Balancer]:
    with websocket_backend() as address:
        balancer = stage.balancer([address])
        yield balancer
        balancer.close()


def test_websocket_messages_travel_both_ways(websocket_balancer: Balancer) -> None:
    with websocket_connect(f"ws://127.0.0.1:{websocket_balancer.port}/chat") as websocket:
        for text in ("hello", "", "grüße", "x" * 70_000):
            websocket.send(text)
            assert websocket.recv(timeout=10) == text


def test_websocket_carries_large_binary_messages(websocket_balancer: Balancer) -> None:
    payload = bytes(range(256)) * 8192
    with websocket_connect(f"ws://127.0.0.1:{websocket_balancer.port}/", max_size=None) as websocket:
        websocket.send(payload)
        assert websocket.recv(timeout=20) == payload


def test_websocket_ping_and_close_pass_through(websocket_balancer: Balancer) -> None:
    with websocket_connect(f"ws://127.0.0.1:{websocket_balancer.port}/") as websocket:
        assert websocket.ping().wait(10)
        websocket.close(1000, "done")
        assert websocket.close_code == 1000


def test_websockets_run_side_by_side(websocket_balancer: Balancer) -> None:
    url = f"ws://127.0.0.1:{websocket_balancer.port}/"
    with websocket_connect(url) as first, websocket_connect(url) as second:
        first.send("one")
        second.send("two")
        assert (first.recv(timeout=10), second.recv(timeout=10)) == ("one", "two")


def test_upgrade_fields_reach_both_sides(stage: Stage) -> None:
    backend = stage.backend(switches_then(lambda connection: connection.wait_for_end()))
    client = stage.client(stage.balancer(backend))
    client.send(ASKING)
    response = client.receive_response()
    assert (response.status, response.get("Upgrade")) == (101, "raw")
    assert (response.get("Connection") or "").lower() == "upgrade"
    (request,) = backend.requests
    assert request.get("Upgrade") == "raw"
    assert (request.get("Connection") or "").lower() == "upgrade"


def test_tunnel_carries_any_bytes(stage: Stage) -> None:
    received = []

    def play(connection: BackendConnection) -> None:
        received.append(connection.receive_exactly(6))
        connection.send(b"\x00\r\n\r\n\xff")
        connection.wait_for_end()

    client = tunnel(stage, play)
    client.send(b"\xffGET /")
    assert client.receive_exactly(6) == b"\x00\r\n\r\n\xff"
    assert received == [b"\xffGET /"]


def test_tunnel_bytes_in_the_segment_of_the_101_arrive(stage: Stage) -> None:
    def eager(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(SWITCHING + b"first words")
        connection.wait_for_end()

    client = stage.client(stage.balancer(stage.backend(eager)))
    client.send(ASKING)
    assert client.receive_response().status == 101
    assert client.receive_exactly(11) == b"first words"


def test_tunnel_bytes_sent_before_the_101_arrive_after_it(stage: Stage) -> None:
    def play(connection: BackendConnection) -> None:
        assert connection.receive_exactly(5) == b"early"
        connection.send(b"ok")
        connection.wait_for_end()

    client = stage.client(stage.balancer(stage.backend(switches_then(play))))
    client.send(ASKING + b"early")
    assert client.receive_response().status == 101
    assert client.receive_exactly(2) == b"ok"


def test_refused_upgrade_is_an_ordinary_response(stage: Stage) -> None:
    backend = stage.backend(serve(hello))
    client = stage.client(stage.balancer(backend))
    client.send(ASKING)
    assert client.receive_response().text == "/tunnel"
    client.send(message.request("/next"))
    assert client.receive_response().text == "/next"


def test_pipelined_request_after_a_refused_upgrade_is_served(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend(serve(hello))))
    client.send(ASKING + message.request("/next"))
    assert [client.receive_response().text for _ in range(2)] == ["/tunnel", "/next"]


def test_upgrade_not_named_by_connection_is_not_forwarded(stage: Stage) -> None:
    backend = stage.backend(serve(hello))
    client = stage.client(stage.balancer(backend))
    client.send(message.request("/", "Upgrade: raw"))
    assert client.receive_response().status == 200
    assert backend.requests[0].get("Upgrade") is None


def test_backend_end_closes_the_tunnel(stage: Stage) -> None:
    def says_bye(connection: BackendConnection) -> None:
        connection.send(b"bye")
        connection.close()

    assert tunnel(stage, says_bye).receive_to_end() == b"bye"


def test_client_end_closes_the_tunnel(stage: Stage) -> None:
    ended = threading.Event()

    def play(connection: BackendConnection) -> None:
        connection.wait_for_end()
        ended.set()

    tunnel(stage, play).reset()
    assert ended.wait(10)


def test_half_closed_tunnel_still_carries_the_answer(stage: Stage) -> None:
    def play(connection: BackendConnection) -> None:
        everything = connection.receive_to_end()
        connection.send(b"got " + everything)
        connection.close()

    client = tunnel(stage, play)
    client.send(b"all of it")
    client.half_close()
    assert client.receive_to_end() == b"got all of it"


def test_backend_half_close_leaves_the_other_direction_open(stage: Stage) -> None:
    received: queue.Queue[bytes] = queue.Queue()

    def play(connection: BackendConnection) -> None:
        connection.send(b"bye")
        connection.half_close()
        received.put(connection.receive_to_end())

    client = tunnel(stage, play)
    assert client.receive_to_end() == b"bye"
    client.send(b"more")
    client.close()
    assert received.get(timeout=10) == b"more"


def test_idle_tunnel_is_closed(stage: Stage) -> None:
    ended = threading.Event()

    def play(connection: BackendConnection) -> None:
        connection.wait_for_end()
        ended.set()

    tunnel(stage, play, "--tunnel-idle-timeout", "0.3").expect_end()
    assert ended.wait(10)


def test_tunnel_with_traffic_outlives_other_timeouts(stage: Stage) -> None:
    """Keep-alive, stall and head timeouts are for HTTP; a quiet tunnel has its own."""

    def play(connection: BackendConnection) -> None:
        while True:
            connection.send(connection.receive_exactly(1))

    short = [f"--{name}-timeout=0.2" for name in ("keep-alive", "request-head", "client-body", "upstream-stall")]
    client = tunnel(stage, play, *short, "--response-head-timeout=0.2", "--upstream-idle-timeout=0.2")
    assert client.is_silent_for(0.8)
    client.send(b"x")
    assert client.receive_exactly(1) == b"x"
