"""Chunked bodies in both directions, with trailers (RFC 9112 §7.1)."""

from __future__ import annotations

import threading

import pytest

from harness import message
from harness.backends import BackendConnection, echo, serve
from harness.stage import Stage

LAST = b"0\r\n\r\n"


def test_chunked_request_stays_chunked(stage: Stage) -> None:
    backend = stage.backend(serve(echo))
    client = stage.client(stage.balancer(backend))
    client.send(message.chunked_request("/", [b"hello ", b"world"]))
    assert client.receive_response().body == b"hello world"
    (request,) = backend.requests
    assert request.is_chunked and request.get("Content-Length") is None


def test_request_trailers_arrive(stage: Stage) -> None:
    backend = stage.backend(serve(echo))
    client = stage.client(stage.balancer(backend))
    client.send(message.chunked_request("/", [b"x"], "Trailer: X-Sum", trailers=["X-Sum: 1", "X-Other: 2"]))
    assert client.receive_response().status == 200
    assert backend.requests[0].trailers == [("X-Sum", "1"), ("X-Other", "2")]


def test_response_trailers_arrive(stage: Stage) -> None:
    answer = message.chunked_response([b"a", b"b"], "Trailer: X-Sum", trailers=["X-Sum: 1", "X-Sum: 2"])
    client = stage.client(stage.balancer(stage.backend(serve(lambda request: answer))))
    for _ in range(2):
        client.send(message.request("/", "TE: trailers"))
        response = client.receive_response()
        assert (response.body, response.trailers) == (b"ab", [("X-Sum", "1"), ("X-Sum", "2")])


@pytest.mark.parametrize(
    "framed",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"0005\r\nhello\r\n000\r\n\r\n",
        b"5;name=value\r\nhello\r\n0;last\r\n\r\n",
        b'5;name="quoted; text"\r\nhello\r\n0\r\n\r\n',
        b"1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
    ],
)
def test_valid_spelling_of_chunks_is_understood(stage: Stage, framed: bytes) -> None:
    client = stage.client(stage.balancer(stage.backend(serve(echo))))
    head = message.request("/", "Transfer-Encoding: chunked", method="POST")
    client.send(head + framed + message.request("/next", method="POST", body=b"next"))
    assert [client.receive_response().body for _ in range(2)] == [b"hello", b"next"]


@pytest.mark.parametrize("name", ["Chunked", "CHUNKED", "chunked"])
def test_coding_name_is_case_insensitive(stage: Stage, name: str) -> None:
    client = stage.client(stage.balancer(stage.backend(serve(echo))))
    client.send(message.request("/", f"Transfer-Encoding: {name}", method="POST") + b"2\r\nok\r\n" + LAST)
    assert client.receive_response().body == b"ok"


def test_hex_digits_of_either_case_are_understood(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend(serve(echo))))
    head = message.request("/", "Transfer-Encoding: chunked", method="POST")
    client.send(head + b"A\r\n" + b"x" * 10 + b"\r\n" + b"b\r\n" + b"y" * 11 + b"\r\n" + LAST)
    assert client.receive_response().body == b"x" * 10 + b"y" * 11


def test_empty_chunked_body_is_forwarded(stage: Stage) -> None:
    client = stage.client(stage.balancer(stage.backend(serve(echo))))
    for _ in range(2):
        client.send(message.chunked_request("/", []))
        assert client.receive_response().body == b""


def test_chunks_sent_byte_by_byte_are_understood(stage: Stage) -> None:
    answer = message.chunked_response([b"hello ", b"world"], trailers=["X-Sum: 1"])

    def slowly(connection: BackendConnection) -> None:
        assert connection.receive_request().body == b"one two"
        connection.send_slowly(answer)

    client = stage.client(stage.balancer(stage.backend(slowly)))
    client.send_slowly(message.chunked_request("/", [b"one", b" two"]))
    response = client.receive_response()
    assert (response.body, response.trailers) == (b"hello world", [("X-Sum", "1")])


def test_many_small_and_large_chunks_survive(stage: Stage) -> None:
    chunks = [bytes([size % 251]) * size for size in (1, 2, 3, 1000, 16384, 65536, 1, 300_000)] * 3
    client = stage.client(stage.balancer(stage.backend(serve(lambda r: message.chunked_response([r.body])))))
    client.send(message.chunked_request("/", chunks))
    assert client.receive_response().body == b"".join(chunks)


def test_response_chunk_is_not_held_back(stage: Stage) -> None:
    """The second chunk is sent only after the client has the first one."""
    first_arrived = threading.Event()

    def in_steps(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head("Transfer-Encoding: chunked") + message.chunk(b"one"))
        assert first_arrived.wait(10)
        connection.send(message.chunk(b"two") + LAST)

    client = stage.client(stage.balancer(stage.backend(in_steps)))
    client.send(message.request("/"))
    assert client.receive_response_head().is_chunked
    assert client.receive_chunk() == b"one"
    first_arrived.set()
    assert client.receive_chunk() == b"two"
    assert client.receive_chunk() == b""


def test_request_chunk_is_not_held_back(stage: Stage) -> None:
    first_arrived = threading.Event()

    def in_steps(connection: BackendConnection) -> None:
        connection.receive_request_head()
        assert connection.receive_chunk() == b"one"
        first_arrived.set()
        assert connection.receive_chunk() == b"two"
        connection.receive_until(b"\r\n")
        connection.send(message.response(b"done"))

    client = stage.client(stage.balancer(stage.backend(in_steps)))
    client.send(message.request("/", "Transfer-Encoding: chunked", method="POST") + message.chunk(b"one"))
    assert first_arrived.wait(10)
    client.send(message.chunk(b"two") + LAST)
    assert client.receive_response().body == b"done"


@pytest.mark.parametrize(
    "bad", [b"zz\r\n", b"-1\r\n", b"1 1\r\n", b"3\r\nabcX", b"5\nhello", b"ffffffffffffffffff\r\n"]
)
def test_bad_chunk_from_the_backend_is_no_clean_end(stage: Stage, bad: bytes) -> None:
    def broken(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head("Transfer-Encoding: chunked") + message.chunk(b"good") + bad + LAST)
        connection.wait_for_end()

    client = stage.client(stage.balancer(stage.backend(broken)))
    client.send(message.request("/"))
    try:
        everything = client.receive_to_end()
    except ConnectionResetError:
        everything = client.unread
    assert not everything.endswith(LAST), everything
