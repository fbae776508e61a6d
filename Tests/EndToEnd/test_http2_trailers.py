"""Trailers behind a body whose length was announced: HTTP/2 has a place for them, HTTP/1.1 has not."""

from __future__ import annotations

import h2.events
import pytest

from harness.http2 import Answer, Http2Backend, Http2BackendConnection, Http2Client, Http2Script, serve_http2
from harness.stage import Stage
from harness.waiting import wait_until

LENGTH = ("content-length", "4")


def serving(connection: Http2BackendConnection) -> None:
    """Answers each request with its own body, the same length and a trailer."""
    connection.start()
    for count in range(1, 9):
        stream = connection.next_request(count).stream_id
        body = connection.wait_for_stream_end(stream)
        connection.h2.send_headers(stream, [(":status", "200"), ("content-length", str(len(body)))])
        connection.h2.send_data(stream, body)
        connection.send_fields(stream, [("x-sum", "out")], ends=True)


def send(client: Http2Client, *, pauses: bool = False) -> int:
    stream = client.h2.get_next_available_stream_id()
    client.h2.send_headers(stream, client.request_fields("/", LENGTH, ("te", "trailers"), method="POST"))
    client.h2.send_data(stream, b"some")
    if pauses:
        client.flush()
    else:
        client.send_fields(stream, [("x-sum", "in")], ends=True)
    return stream


def received(backend: Http2Backend) -> list[list[tuple[str, str]]]:
    return [
        list(event.headers)
        for connection in backend.connections
        for event in connection.all(h2.events.TrailersReceived)
    ]


def assert_whole(answer: Answer) -> None:
    assert (answer.status, answer.body, answer.get("content-length")) == (200, b"some", "4")
    assert answer.trailers == [("x-sum", "out")]
    assert answer.is_complete


def test_trailers_go_both_ways(stage: Stage) -> None:
    backend = stage.keep(Http2Backend(serving))
    client = stage.keep(Http2Client(stage.balancer(backend).port))
    for count in (1, 2):
        assert_whole(client.answer(send(client)))
        assert received(backend) == [[("x-sum", "in")]] * count
    assert all(fields["content-length"] == "4" for fields in backend.requests)


def test_trailers_that_come_later(stage: Stage) -> None:
    """The body has long been passed on when they come."""
    has_gone_on: list[int] = []

    def pausing(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.wait_until(lambda: connection.all(h2.events.DataReceived, stream) != [])
        has_gone_on.append(stream)
        body = connection.wait_for_stream_end(stream)
        connection.send_fields(stream, [(":status", "200"), ("content-length", "4")])
        connection.send_data(stream, body)
        more = connection.next_request(2).stream_id
        connection.answer(more)
        connection.send_fields(stream, [("x-sum", "out")], ends=True)
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(pausing))
    client = stage.keep(Http2Client(stage.balancer(backend).port))
    stream = send(client, pauses=True)
    wait_until(lambda: has_gone_on, "the body at the backend")
    client.send_fields(stream, [("x-sum", "in")], ends=True)
    client.wait_for(h2.events.DataReceived, stream)
    assert client.so_far(stream).body == b"some"
    assert not client.so_far(stream).is_complete
    assert client.get().status == 200
    assert_whole(client.answer(stream))
    assert received(backend) == [[("x-sum", "in")]]


def test_trailers_are_sent_again(stage: Stage) -> None:
    def refuses(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.wait_for_stream_end(stream)
        connection.goaway(0)
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(refuses, serving))
    client = stage.keep(Http2Client(stage.balancer(backend).port))
    assert_whole(client.answer(send(client)))
    assert received(backend) == [[("x-sum", "in")]] * 2


@pytest.mark.parametrize("size", [1, 200_000])
def test_end_that_comes_alone_ends_the_message(stage: Stage, size: int) -> None:
    """Without trailers, in a frame of its own."""

    def respond(connection: Http2BackendConnection, stream: int, fields: dict[str, str], body: bytes) -> None:
        assert len(body) == size
        connection.send_fields(stream, [(":status", "200"), ("content-length", str(size))])
        connection.send_data(stream, body)
        connection.send_data(stream, b"", ends=True)

    script: Http2Script = serve_http2(respond)
    client = stage.keep(Http2Client(stage.balancer(stage.keep(Http2Backend(script))).port))
    stream = client.h2.get_next_available_stream_id()
    client.send_fields(stream, client.request_fields("/", ("content-length", str(size)), method="POST"))
    client.send_data(stream, b"x" * size)
    client.send_data(stream, b"", ends=True)
    answer = client.answer(stream)
    assert (answer.status, len(answer.body), answer.trailers, answer.is_complete) == (200, size, [], True)


def test_body_that_is_whole_when_its_stream_breaks_is_whole(stage: Stage) -> None:
    def breaks(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.send_fields(stream, [(":status", "200"), LENGTH])
        connection.send_data(stream, b"some")
        connection.reset(stream, 0)
        connection.wait_for_end()

    client = stage.keep(Http2Client(stage.balancer(stage.keep(Http2Backend(breaks))).port))
    answer = client.get()
    assert (answer.status, answer.body, answer.is_complete) == (200, b"some", True)
