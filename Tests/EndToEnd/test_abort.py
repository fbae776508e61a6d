"""Peers that go away in the middle: the other side learns of it, and never takes it for an end."""

from __future__ import annotations

import threading

import pytest

from harness import message
from harness.backends import BackendConnection, Script, hello, serve
from harness.stage import Stage
from harness.wire import Connection, PeerClosed


def begins(*parts: bytes, end: str) -> Script:
    """Reads a request, sends `parts`, and ends by FIN or RST."""

    def script(connection: BackendConnection) -> None:
        connection.receive_request()
        for part in parts:
            connection.send(part)
        connection.reset() if end == "reset" else connection.close()

    return script


def leave(client: Connection, how: str) -> None:
    client.reset() if how == "reset" else client.close()


# The client goes


@pytest.mark.parametrize("how", ["reset", "close"])
def test_client_that_leaves_while_waiting_aborts_the_backend_request(stage: Stage, how: str) -> None:
    ended = threading.Event()

    def waits(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.wait_for_end()
        ended.set()

    backend = stage.backend(waits)
    client = stage.balancer(backend, "--half-close-timeout", "0.3").connect()
    client.send(message.request("/"))
    backend.wait_for_requests(1)
    leave(client, how)
    assert ended.wait(10)


@pytest.mark.parametrize("how", ["reset", "close"])
def test_client_that_leaves_in_a_download_aborts_it(stage: Stage, how: str) -> None:
    def endless(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head("Content-Length: 1000000000"))
        for _ in range(1000):
            connection.send(b"x" * 1_000_000)

    backend = stage.backend(endless)
    client = stage.balancer(backend).connect()
    client.send(message.request("/"))
    client.receive_response_head()
    leave(client, how)
    assert backend.connections[0].ended.wait(10)


@pytest.mark.parametrize("how", ["reset", "close"])
def test_client_that_leaves_in_an_upload_aborts_it(stage: Stage, how: str) -> None:
    """The backend must see that the body is not whole."""
    begun, ended = threading.Event(), threading.Event()

    def reads(connection: BackendConnection) -> None:
        connection.receive_request_head()
        assert connection.receive_exactly(4) == b"half"
        begun.set()
        with pytest.raises((PeerClosed, ConnectionResetError)):
            connection.receive_exactly(1)
        ended.set()

    backend = stage.backend(reads)
    client = stage.balancer(backend).connect()
    client.send(message.request("/", "Content-Length: 10", method="POST") + b"half")
    assert begun.wait(10)
    leave(client, how)
    assert ended.wait(10)


def test_aborted_chunked_upload_has_no_last_chunk(stage: Stage) -> None:
    begun = threading.Event()

    def reads(connection: BackendConnection) -> None:
        connection.receive_request_head()
        assert connection.receive_chunk() == b"half"
        begun.set()
        connection.wait_for_end()

    backend = stage.backend(reads)
    client = stage.balancer(backend).connect()
    client.send(message.request("/", "Transfer-Encoding: chunked", method="POST") + message.chunk(b"half"))
    assert begun.wait(10)
    client.reset()
    assert backend.connections[0].ended.wait(10)
    assert not bytes(backend.connections[0].received).endswith(b"0\r\n\r\n")


def test_aborted_backend_connection_is_not_used_again(stage: Stage) -> None:
    def late(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.is_silent_for(0.3)
        connection.send(message.response(b"for somebody else"))

    backend = stage.backend(late, serve(hello))
    balancer = stage.balancer(backend)
    client = balancer.connect()
    client.send(message.request("/gone"))
    backend.wait_for_requests(1)
    client.reset()
    assert balancer.get("/mine").text == "/mine"


# The backend goes


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize(
    "start",
    [
        message.response_head("Content-Length: 100") + b"half",
        message.response_head("Transfer-Encoding: chunked") + message.chunk(b"half"),
        message.response_head("Transfer-Encoding: chunked") + b"8\r\nhalf",
        message.response_head("Transfer-Encoding: chunked") + message.chunk(b"all") + b"0\r\n",
        message.response_head("Transfer-Encoding: chunked") + message.chunk(b"all") + b"0\r\nX-Trailer: a\r\n",
    ],
    ids=["length", "between chunks", "inside a chunk", "before the trailers", "inside the trailers"],
)
def test_truncated_response_is_visibly_truncated(stage: Stage, start: bytes, end: str) -> None:
    client = stage.client(stage.balancer(stage.backend(begins(start, end=end))))
    client.send(message.request("/"))
    try:
        response = client.receive_response()
    except (PeerClosed, ConnectionResetError):
        return
    assert response.status == 502, "the response looks complete"


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("start", [b"", b"HTTP", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"])
def test_backend_that_ends_before_its_head_does_is_a_bad_gateway(stage: Stage, start: bytes, end: str) -> None:
    client = stage.client(stage.balancer(stage.backend(begins(start, end=end))))
    client.send(message.request("/"))
    assert client.receive_response().status == 502


def test_backend_that_ends_after_an_interim_response_is_a_bad_gateway(stage: Stage) -> None:
    hints = message.response_head("Link: </a.css>", status="103 Early Hints")
    client = stage.client(stage.balancer(stage.backend(begins(hints, end="close"))))
    client.send(message.request("/"))
    response = client.receive_response()
    assert (response.status, [i.status for i in response.interim]) == (502, [103])


def test_truncation_is_visible_to_an_http10_client(stage: Stage) -> None:
    """It has no chunks to miss; a length that was announced, or a reset, must tell it."""
    start = message.response_head("Transfer-Encoding: chunked") + message.chunk(b"half")
    client = stage.client(stage.balancer(stage.backend(begins(start, end="close"))))
    client.send(message.request("/", version="1.0"))
    try:
        response = client.receive_response()
    except (PeerClosed, ConnectionResetError):
        return
    assert response.status == 502, "the response looks complete"


def test_other_connections_survive_a_broken_one(stage: Stage) -> None:
    may_break = threading.Event()

    def breaks(connection: BackendConnection) -> None:
        connection.receive_request()
        assert may_break.wait(10)
        connection.send(message.response_head("Content-Length: 100") + b"half")
        connection.reset()

    backend = stage.backend(breaks, serve(hello))
    balancer = stage.balancer(backend)
    unlucky, steady = stage.client(balancer), stage.client(balancer)
    unlucky.send(message.request("/unlucky"))
    backend.wait_for_requests(1)
    for target in ("/before", "/after"):
        steady.send(message.request(target))
        assert steady.receive_response().text == target
        may_break.set()
    with pytest.raises((PeerClosed, ConnectionResetError)):
        unlucky.receive_response()
