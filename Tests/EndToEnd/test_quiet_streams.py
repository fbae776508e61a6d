"""Streams with both sides open, as of gRPC: either side may be silent between two messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import h2.events
import pytest

from harness import message
from harness.backends import BackendConnection
from harness.collector import Collector
from harness.http2 import Http2Backend, Http2BackendConnection, Http2Client
from harness.stage import Stage
from harness.waiting import PATIENCE_S

SHORT = ("--client-body-timeout", "0.2", "--upstream-stall-timeout", "0.2")


def data_of(connection: Http2BackendConnection | Http2Client, stream: int) -> bytes:
    return b"".join(event.data for event in connection.all(h2.events.DataReceived, stream))


def echoes(connection: Http2BackendConnection) -> None:
    """Begins its answer at once, and sends back what comes, until the request ends."""
    connection.start()
    stream = connection.next_request().stream_id
    connection.send_fields(stream, [(":status", "200")])
    sent = 0
    while not connection.all(h2.events.StreamEnded, stream):
        if data := data_of(connection, stream)[sent:]:
            connection.send_data(stream, data)
            sent += len(data)
        connection.receive()
    connection.send_data(stream, b"", ends=True)
    connection.wait_for_end()


def echoes_over_http1(connection: BackendConnection) -> None:
    connection.receive_request_head()
    connection.send(message.response_head("Transfer-Encoding: chunked"))
    for _ in range(2):
        connection.send(connection.receive_exactly(len(b"5\r\nhello\r\n")))
    assert connection.receive_exactly(5) == b"0\r\n\r\n"
    connection.send(b"0\r\n\r\n")


def open_stream(client: Http2Client) -> int:
    """A stream whose request is open and whose answer has begun."""
    stream = client.h2.get_next_available_stream_id()
    client.send_fields(stream, client.request_fields("/", method="POST"))
    client.wait_for(h2.events.ResponseReceived, stream)
    return stream


class Scene:
    """A client, a balancer and an HTTP/2 backend, with one stream that is open on both sides."""

    def __init__(self, stage: Stage, script: Callable[[Http2BackendConnection], None], *flags: str) -> None:
        self.collector: Collector = stage.collector()
        self.backend = stage.keep(Http2Backend(script))
        balancer = stage.balancer(self.backend, *flags, collector=self.collector)
        self.client = stage.keep(Http2Client(balancer.port))
        self.stream = open_stream(self.client)


@pytest.mark.parametrize("version", ["h1", "h2"])
def test_silence_of_an_open_stream_is_allowed(stage: Stage, version: str) -> None:
    backend = stage.keep(Http2Backend(echoes)) if version == "h2" else stage.backend(echoes_over_http1)
    client = stage.keep(Http2Client(stage.balancer(backend, *SHORT).port))
    stream = open_stream(client)
    client.send_data(stream, b"hello")
    client.wait_until(lambda: client.so_far(stream).body == b"hello")
    time.sleep(0.7)
    client.send_data(stream, b"again")
    client.wait_until(lambda: client.so_far(stream).body == b"helloagain")
    client.send_data(stream, b"", ends=True)
    assert client.answer(stream).is_complete


def test_open_stream_that_stays_silent_is_ended(stage: Stage) -> None:
    scene = Scene(stage, echoes, "--tunnel-idle-timeout", "0.3")
    assert scene.client.answer(scene.stream).reset is not None
    tree = scene.collector.wait_for_tree()
    assert tree.span.error_type == "client_timeout"
    assert tree.one("backend_request_h2").status == "UNSET", "not the backend's fault"


@pytest.mark.parametrize("who", ["client", "backend"])
def test_messages_of_one_side_keep_a_stream_open(stage: Stage, who: str) -> None:
    def talks(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.send_fields(stream, [(":status", "200")])
        for _ in range(8 if who == "backend" else 0):
            time.sleep(0.1)
            connection.send_data(stream, b"x")
        connection.wait_until(lambda: data_of(connection, stream).endswith(b"."))
        connection.send_data(stream, b".", ends=True)

    scene = Scene(stage, talks, "--tunnel-idle-timeout", "0.4")
    for _ in range(8 if who == "client" else 0):
        time.sleep(0.1)
        scene.client.send_data(scene.stream, b"x")
    scene.client.wait_until(lambda: len(data_of(scene.client, scene.stream)) == (8 if who == "backend" else 0))
    scene.client.send_data(scene.stream, b".", ends=True)
    assert scene.client.answer(scene.stream).is_complete


def test_backend_that_stalls_behind_the_end_of_the_request_is_given_up(stage: Stage) -> None:
    def stalls(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.send_fields(stream, [(":status", "200")])
        connection.wait_for_end()

    scene = Scene(stage, stalls, *SHORT)
    scene.client.send_data(scene.stream, b"", ends=True)
    assert scene.client.answer(scene.stream).reset is not None
    assert scene.collector.wait_for_tree().span.error_type == "upstream_timeout"


def test_grpc_subscription_whose_client_has_nothing_to_say(stage: Stage) -> None:
    def subscribe(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        yield next(requests)
        time.sleep(0.7)
        yield b"news"

    handler = grpc.stream_stream_rpc_method_handler(subscribe)
    handlers = (grpc.method_handlers_generic_handler("test", {"Subscribe": handler}),)
    server = grpc.server(ThreadPoolExecutor(2), handlers=handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    balancer = stage.balancer([f"h2c://127.0.0.1:{port}"], *SHORT)
    has_all = threading.Event()

    def requests() -> Iterator[bytes]:
        yield b"topic"
        has_all.wait(PATIENCE_S)

    with grpc.insecure_channel(f"127.0.0.1:{balancer.port}") as channel:
        answers = channel.stream_stream("/test/Subscribe")(requests(), timeout=PATIENCE_S)
        assert list(answers) == [b"topic", b"news"]
        has_all.set()
    server.stop(0).wait()
