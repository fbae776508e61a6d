"""Persistent connections on both sides, and pipelining (RFC 9112 §9)."""

from __future__ import annotations

import threading

import pytest

from harness import message
from harness.backends import BackendConnection, echo, hello, serve, serve_once
from harness.stage import Stage


def test_requests_share_one_connection_on_both_sides(stage: Stage) -> None:
    backend = stage.backend()
    client = stage.client(stage.balancer(backend))
    for number in range(5):
        client.send(message.request(f"/{number}"))
        response = client.receive_response()
        assert (response.text, response.closes) == (f"/{number}", False)
    assert len(backend.connections) == 1


def test_backend_connection_outlives_the_client(stage: Stage) -> None:
    backend = stage.backend()
    balancer = stage.balancer(backend)
    for number in range(3):
        assert balancer.get(f"/{number}").text == f"/{number}"
    assert len(backend.connections) == 1


def test_client_connection_outlives_the_backend_connection(stage: Stage) -> None:
    backend = stage.backend(serve_once(message.response(b"bye", "Connection: close")))
    client = stage.client(stage.balancer(backend))
    for number in range(3):
        client.send(message.request(f"/{number}"))
        response = client.receive_response()
        assert (response.text, response.closes) == ("bye", False)
    assert len(backend.wait_for_connections(3)) == 3


def test_connection_close_is_honoured(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend()))
    client.send(message.request("/last", "Connection: close"))
    response = client.receive_response()
    assert response.closes
    client.expect_end()


def test_nothing_after_connection_close_is_served(stage: Stage) -> None:
    backend = stage.backend()
    client = stage.client(stage.balancer(backend))
    client.send(message.request("/last", "Connection: close") + message.request("/after"))
    assert client.receive_response().text == "/last"
    client.expect_end()
    assert [request.target for request in backend.requests] == ["/last"]


def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend()))
    client.send(b"".join(message.request(f"/{number}") for number in range(20)))
    assert [client.receive_response().text for _ in range(20)] == [f"/{number}" for number in range(20)]


def test_pipelined_requests_stay_in_order_when_the_first_is_slow(stage: Stage) -> None:
    """The second could be answered at once by another connection, but must not overtake the first."""
    first_may_answer = threading.Event()

    def slow(connection: BackendConnection) -> None:
        connection.receive_request()
        assert first_may_answer.wait(10)
        connection.send(message.response(b"slow"))
        serve(hello)(connection)

    backend = stage.backend(slow, serve(hello))
    client = stage.client(stage.balancer(backend))
    client.send(message.request("/a") + message.request("/b"))
    backend.wait_for_requests(1)
    first_may_answer.set()
    assert client.receive_response().text == "slow"
    assert client.receive_response().text == "/b"


def test_pipelined_requests_with_bodies_are_told_apart(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend(serve(echo))))
    client.send(
        message.request("/a", method="POST", body=b"GET /fake HTTP/1.1\r\n\r\n")
        + message.chunked_request("/b", [b"0\r\n\r\n", b"more"])
        + message.request("/c", method="PUT", body=b"")
        + message.request("/d", method="POST", body=b"end")
    )
    bodies = [client.receive_response().body for _ in range(4)]
    assert bodies == [b"GET /fake HTTP/1.1\r\n\r\n", b"0\r\n\r\nmore", b"", b"end"]


@pytest.mark.parametrize("split", [1, 2, 7, 50])
def test_split_of_the_input_makes_no_difference(stage: Stage, split: int) -> None:
    client = stage.client(stage.balancer(stage.backend(serve(echo))))
    data = message.request("/a", method="POST", body=b"one") + message.chunked_request("/b", [b"t", b"wo"])
    for start in range(0, len(data), split):
        client.send(data[start : start + split])
    assert [client.receive_response().body for _ in range(2)] == [b"one", b"two"]


def test_empty_lines_before_a_request_are_ignored(stage: Stage) -> None:
    """RFC 9112 §2.2: at least one CRLF before the request line."""
    client = stage.client(stage.balancer(stage.backend()))
    client.send(b"\r\n" + message.request("/a") + b"\r\n" + message.request("/b"))
    assert [client.receive_response().text for _ in range(2)] == ["/a", "/b"]


def test_many_clients_at_once_get_their_own_answers(stage: Stage) -> None:
    balancer = stage.balancer([stage.backend(), stage.backend()], workers=2)
    clients = [stage.client(balancer) for _ in range(50)]
    for round_number in range(3):
        for number, client in enumerate(clients):
            client.send(message.request(f"/{round_number}/{number}"))
        for number, client in enumerate(clients):
            assert client.receive_response().text == f"/{round_number}/{number}"


def test_requests_are_spread_in_turn(stage: Stage) -> None:
    backends = [stage.backend(serve(hello)) for _ in range(3)]
    balancer = stage.balancer(backends)
    for number in range(9):
        assert balancer.get(f"/{number}").status == 200
    assert [len(backend.requests) for backend in backends] == [3, 3, 3]
