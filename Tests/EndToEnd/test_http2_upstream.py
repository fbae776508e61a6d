"""Backends that speak HTTP/2 in cleartext: mapping, pool, GOAWAY and refused streams, and what the trace says."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import h2.events
import h2.settings
import pytest

from harness import message
from harness.backends import refused_port
from harness.balancer import Balancer
from harness.collector import Collector
from harness.http2 import (
    Http2Backend,
    Http2BackendConnection,
    Http2Client,
    Http2Script,
    echo_http2,
    refuse_the_rest,
    say_path,
    serve_http2,
)
from harness.spans import Tree
from harness.stage import Stage
from harness.waiting import wait_until

MAX_CONCURRENT = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
FRESH = [
    "proxy_request SERVER",
    "  backend_selection INTERNAL",
    "  backend_request_h2 CLIENT",
    "    pool_acquire INTERNAL",
    "    tcp_connect INTERNAL",
    "    h2_handshake INTERNAL",
    "    response_streaming INTERNAL",
]
REUSED = [line for line in FRESH if "tcp_connect" not in line and "h2_handshake" not in line]
UNANSWERED = FRESH[:-1]


class Setting:
    """A balancer in front of scripted HTTP/2 backends, with a collector."""

    def __init__(self, stage: Stage, *scripts: Http2Script, flags: tuple[str, ...] = ()) -> None:
        self.stage = stage
        self.backend = stage.keep(Http2Backend(*scripts))
        self.collector: Collector = stage.collector()
        self.balancer: Balancer = stage.balancer(self.backend, *flags, collector=self.collector)

    def tree(self) -> Tree:
        tree = self.collector.wait_for_tree()
        tree.assert_sound()
        return tree

    def trees(self, count: int) -> list[Tree]:
        trees = self.collector.wait_for_trees(count)
        for tree in trees:
            tree.assert_sound()
        return trees

    def client(self) -> Http2Client:
        return self.stage.keep(Http2Client(self.balancer.port))


# Mapping


def test_request_arrives_as_http2(stage: Stage) -> None:
    setting = Setting(stage)
    answer = setting.balancer.exchange(
        message.request("/a?b", "Accept: */*", "X-Twice: 1", "X-Twice: 2", "Connection: keep-alive, X-Hop", "X-Hop: 1")
    )
    assert (answer.status, answer.body) == (200, b"/a?b")
    connection = setting.backend.connections[0]
    fields = list(connection.all(h2.events.RequestReceived)[0].headers)
    names = [name for name, _ in fields]
    assert fields[:4] == [(":method", "GET"), (":scheme", "http"), (":authority", "example.test"), (":path", "/a?b")]
    assert names.count("x-twice") == 2
    assert not {"connection", "host", "x-hop", "keep-alive"} & set(names)
    assert ("x-forwarded-for", "127.0.0.1") in fields


@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 1_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_body_goes_there_and_back(stage: Stage, size: int, is_chunked: bool) -> None:
    setting = Setting(stage, serve_http2(echo_http2))
    body = os.urandom(size)
    request = (
        message.chunked_request("/", [body[at : at + 9000] for at in range(0, size, 9000)])
        if is_chunked
        else message.request("/", method="POST", body=body)
    )
    assert setting.balancer.exchange(request).body == body


def test_many_requests_share_one_connection(stage: Stage) -> None:
    setting = Setting(stage)
    client = setting.client()
    client.get("/first")
    streams = [client.request(f"/{n}") for n in range(50)]
    assert [client.answer(stream).body for stream in streams] == [f"/{n}".encode() for n in range(50)]
    assert len(setting.backend.connections) == 1


def test_trailers_in_both_directions(stage: Stage) -> None:
    def respond(connection: Http2BackendConnection, stream: int, fields: dict[str, str], body: bytes) -> None:
        trailers = connection.all(h2.events.TrailersReceived, stream)[0].headers
        connection.send_fields(stream, [(":status", "200")])
        connection.send_data(stream, body)
        connection.send_fields(stream, [("x-echo", dict(trailers)["x-sum"])], ends=True)

    setting = Setting(stage, serve_http2(respond))
    answer = setting.balancer.exchange(message.chunked_request("/", [b"ab", b"c"], trailers=["X-Sum: 7"]))
    assert (answer.body, answer.trailers) == (b"abc", [("x-echo", "7")])
    client = setting.client()
    stream = client.h2.get_next_available_stream_id()
    client.send_fields(stream, client.request_fields("/", method="POST"))
    client.send_data(stream, b"abc")
    client.send_fields(stream, [("x-sum", "8")], ends=True)
    assert client.answer(stream).trailers == [("x-echo", "8")]


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_body(stage: Stage, status: int) -> None:
    setting = Setting(stage, serve_http2(lambda c, s, f, b: c.answer(s, status=status)))
    assert setting.balancer.get().status == status


def test_head_and_length(stage: Stage) -> None:
    setting = Setting(stage, serve_http2(lambda c, s, f, b: c.answer(s, b"", ("content-length", "7"))))
    answer = setting.balancer.exchange(message.request("/", method="HEAD"))
    assert (answer.get("content-length"), answer.body) == ("7", b"")


def test_interim_responses_are_passed_on(stage: Stage) -> None:
    def respond(connection: Http2BackendConnection, stream: int, fields: dict[str, str], body: bytes) -> None:
        connection.send_fields(stream, [(":status", "103"), ("link", "</a>")])
        connection.answer(stream, b"ok")

    answer = Setting(stage, serve_http2(respond)).balancer.get()
    assert ([i.status for i in answer.interim], answer.body) == ([103], b"ok")


def test_response_cut_short_is_cut_for_the_client(stage: Stage) -> None:
    def respond(connection: Http2BackendConnection, stream: int, fields: dict[str, str], body: bytes) -> None:
        connection.send_fields(stream, [(":status", "200"), ("content-length", "100")])
        connection.send_data(stream, b"some")
        connection.reset(stream, 2)

    setting = Setting(stage, serve_http2(respond))
    answer = setting.client().get()
    assert (answer.status, answer.body, answer.reset) == (200, b"some", 2)
    tree = setting.tree()
    assert tree.outline() == FRESH
    event = tree.one("backend_request_h2").event("stream_reset")
    assert event.attributes == {"h2.error_code": "INTERNAL_ERROR", "h2.reset_by": "peer"}
    assert tree.one("response_streaming").attributes["http.body.had_error"] is True


def test_early_answer_leaves_the_rest_of_the_request(stage: Stage) -> None:
    setting = Setting(stage, refuse_the_rest)
    client = setting.balancer.connect()
    client.send(message.request("/", "Content-Length: 100", method="POST") + b"some")
    answer = client.receive_response()
    client.close()
    assert (answer.status, answer.body) == (413, b"no")


def test_client_that_leaves_cancels_the_stream(stage: Stage) -> None:
    reset = threading.Event()

    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        assert connection.wait_for(h2.events.StreamReset, stream).error_code == 8
        reset.set()
        connection.wait_for_end()

    setting = Setting(stage, script)
    client = setting.client()
    stream = client.request("/")
    setting.backend.wait_for_connections(1)
    wait_until(lambda: bool(setting.backend.requests), "the request")
    client.reset(stream)
    assert reset.wait(10)
    tree = setting.tree()
    assert tree.span.error_type == "client_closed"
    event = tree.one("backend_request_h2").event("stream_reset")
    assert event.attributes == {"h2.error_code": "CANCEL", "h2.reset_by": "local"}


def test_slow_window_of_the_backend_holds_the_client(stage: Stage) -> None:
    """The backend takes nothing of the body; then everything."""
    may_read = threading.Event()

    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.holds_window = True
        assert may_read.wait(10)
        connection.holds_window = False
        for event in connection.all(h2.events.DataReceived, stream):
            connection.h2.acknowledge_received_data(event.flow_controlled_length, stream)
        connection.flush()
        connection.answer(stream, b"%d" % len(connection.wait_for_stream_end(stream)))
        connection.wait_for_end()

    setting = Setting(stage, script)
    client = setting.balancer.connect()
    client.send(message.request("/", "Content-Length: 8000000", method="POST"))
    client.sock.settimeout(1)
    sent = 0
    try:
        while sent < 8_000_000:
            sent += client.sock.send(b"x" * min(65536, 8_000_000 - sent))
    except TimeoutError:
        pass
    assert sent < 8_000_000
    client.sock.settimeout(10)
    may_read.set()
    client.send(b"x" * (8_000_000 - sent))
    assert client.receive_response().body == b"8000000"
    client.close()


# The tree


def test_tree_of_the_request_that_made_the_connection(stage: Stage) -> None:
    setting = Setting(stage, serve_http2(settings={MAX_CONCURRENT: 42}))
    setting.balancer.exchange(message.request("/path", "User-Agent: t"))
    tree = setting.tree()
    assert tree.outline() == FRESH
    attempt = tree.one("backend_request_h2")
    assert attempt.attributes == {
        "http.method": "GET",
        "http.url": "http://example.test/path",
        "http.status_code": 200,
        "http.response_content_length": 5,
        "h2.retry_count": 0,
        "h2.stream_id": 1,
        "h2.streams_active": 1,
        "connection.id": "w0-1",
        "connection.from_pool": False,
    }
    assert tree.one("h2_handshake").attributes == {"h2.max_concurrent_streams": 42, "h2.initial_window_size": 65535}
    assert tree.one("pool_acquire").attributes["pool.outcome"] == "created"
    assert tree.one("response_streaming").attributes == {
        "http.body.type": "h2_streamed",
        "http.body.length": 5,
        "http.body.bytes_written": 5,
        "http.body.had_error": False,
    }
    assert tree.span.attributes["http.flavor"] == "1.1"
    traceparent = setting.backend.requests[0]["traceparent"]
    assert traceparent.split("-")[1:3] == [attempt.trace_id, attempt.span_id]


def test_tree_of_a_request_that_found_the_connection(stage: Stage) -> None:
    setting = Setting(stage)
    for path in ("/a", "/b"):
        setting.balancer.get(path)
    second = setting.trees(2)[1]
    assert second.outline() == REUSED
    attempt = second.one("backend_request_h2").attributes
    assert (attempt["h2.stream_id"], attempt["connection.from_pool"], attempt["connection.id"]) == (3, True, "w0-1")
    assert second.one("pool_acquire").attributes["pool.outcome"] == "reused"


def test_others_wait_for_the_connection_and_say_so(stage: Stage) -> None:
    may_start = threading.Event()

    def script(connection: Http2BackendConnection) -> None:
        assert may_start.wait(10)
        serve_http2()(connection)

    setting = Setting(stage, script)
    client = setting.client()
    streams = [1, 3, 5]
    for stream in streams:
        client.h2.send_headers(stream, client.request_fields(), end_stream=True)
    client.flush()
    setting.backend.wait_for_connections(1)
    may_start.set()
    assert [client.answer(stream).status for stream in streams] == [200] * 3
    trees = setting.trees(3)
    assert len(setting.backend.connections) == 1
    outcomes = sorted(str(tree.one("pool_acquire").attributes["pool.outcome"]) for tree in trees)
    assert outcomes == ["created", "waited", "waited"]
    assert sorted(len(tree.outline()) for tree in trees) == [5, 5, 7]


# The pool


def test_further_connection_when_all_streams_are_taken(stage: Stage) -> None:
    everybody = threading.Barrier(4)

    def respond(connection: Http2BackendConnection, stream: int, fields: dict[str, str], body: bytes) -> None:
        def later() -> None:
            everybody.wait(10)
            say_path(connection, stream, fields, body)

        threading.Thread(target=later, daemon=True).start()

    setting = Setting(stage, serve_http2(respond, {MAX_CONCURRENT: 1}), flags=("--upstream-queue-timeout", "10"))
    clients = [setting.client() for _ in range(4)]
    streams = [client.request("/x") for client in clients]
    assert [client.answer(stream).status for client, stream in zip(clients, streams, strict=True)] == [200] * 4
    assert len(setting.backend.connections) == 4


def test_idle_connection_is_left_with_goaway(stage: Stage) -> None:
    setting = Setting(stage, flags=("--upstream-idle-timeout", "0.2"))
    setting.balancer.get("/a")
    connection = setting.backend.connections[0]
    wait_until(lambda: bool(connection.goaways), "GOAWAY")
    assert connection.goaways[0].error_code == 0
    assert setting.balancer.get("/b").status == 200
    assert len(setting.backend.connections) == 2


def test_silent_connection_is_asked_and_a_dead_one_closed(stage: Stage) -> None:
    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.wait_for(h2.events.PingReceived)
        connection.answer(stream, b"alive")
        connection.wait_for_end()

    setting = Setting(stage, script, flags=("--upstream-ping-interval", "0.2"))
    assert setting.balancer.get().body == b"alive"


def test_old_connection_gets_no_more_requests(stage: Stage) -> None:
    setting = Setting(stage, flags=("--upstream-max-connection-age", "0.001"))
    for path in ("/a", "/b", "/c"):
        assert setting.balancer.get(path).status == 200
        time.sleep(0.05)
    assert len(setting.backend.connections) >= 2
    wait_until(lambda: bool(setting.backend.connections[0].goaways), "GOAWAY")


# GOAWAY and refused streams


def ending(play: Callable[[Http2BackendConnection, int], None]) -> Http2Script:
    """Reads one whole request, then plays."""

    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.wait_for_stream_end(stream)
        play(connection, stream)
        connection.wait_for_end()

    return script


def test_goaway_takes_no_backend_out(stage: Stage) -> None:
    setting = Setting(stage, *[ending(lambda c, s: c.goaway(0))] * 2, serve_http2())
    for _ in range(5):
        assert setting.balancer.get("/x").status == 200
    assert "taken out" not in setting.balancer.log()


@pytest.mark.parametrize("code", [1, 2, 8, 11])
def test_reset_for_another_reason_is_not_retried(stage: Stage, code: int) -> None:
    setting = Setting(stage, ending(lambda c, s: c.reset(s, code)), serve_http2())
    assert setting.balancer.get().status == 502
    assert setting.tree().outline() == UNANSWERED


def test_connection_that_is_refused_goes_to_the_next_backend(stage: Stage) -> None:
    backend = stage.keep(Http2Backend())
    balancer = stage.balancer([f"h2c://127.0.0.1:{refused_port()}", backend])
    for _ in range(4):
        assert balancer.get("/x").body == b"/x"


def test_backend_that_speaks_http1_is_502(stage: Stage) -> None:
    backend = stage.backend(lambda connection: connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    balancer = stage.balancer([f"h2c://{backend.address}"])
    assert balancer.get().status == 502


def test_backend_that_says_nothing_is_504(stage: Stage) -> None:
    def script(connection: Http2BackendConnection) -> None:
        while connection.sock.recv(65536):
            pass

    setting = Setting(stage, script, flags=("--connect-timeout", "0.2"))
    assert setting.balancer.get().status == 504
    tree = setting.trees(1)[0]
    assert tree.all("h2_handshake")[0].status == "ERROR"


def test_answer_that_is_late_is_504_and_the_stream_cancelled(stage: Stage) -> None:
    setting = Setting(
        stage, ending(lambda c, s: c.wait_for_end()), serve_http2(), flags=("--response-head-timeout", "0.2")
    )
    assert setting.balancer.get().status == 504
    connection = setting.backend.connections[0]
    wait_until(lambda: bool(connection.all(h2.events.StreamReset)), "RST_STREAM")
    tree = setting.tree()
    event = tree.one("backend_request_h2").event("stream_reset").attributes
    assert event == {"h2.error_code": "CANCEL", "h2.reset_by": "local"}
