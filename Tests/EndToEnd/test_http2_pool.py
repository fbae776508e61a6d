"""The pool of HTTP/2 connections to a backend, flow control through the proxy, and what it finds wrong by itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import h2.events
import h2.settings
import pytest

from harness.http2 import Http2Backend, Http2BackendConnection, Http2Client, serve_http2
from harness.picture import picture
from harness.stage import Stage
from harness.waiting import wait_until

MAX_CONCURRENT = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS


def allow(connection: Http2BackendConnection, count: int) -> None:
    connection.h2.update_settings({MAX_CONCURRENT: count})
    connection.flush()


def settle(connection: Http2BackendConnection) -> None:
    """Two round trips, after which the balancer has done what the last frames made it do."""
    for _ in range(2):
        before = len(connection.all(h2.events.PingAckReceived))
        connection.h2.ping(b"settled?")
        connection.flush()
        connection.wait_until(lambda: len(connection.all(h2.events.PingAckReceived)) > before)  # noqa: B023


def paths(connection: Http2BackendConnection) -> list[str]:
    return [dict(event.headers)[":path"] for event in connection.all(h2.events.RequestReceived)]


def test_limit_of_streams_is_followed_as_it_changes(stage: Stage) -> None:
    """One, then three, then none, then many; those in line keep their order."""
    seen: list[list[str]] = []
    done = threading.Event()

    def script(connection: Http2BackendConnection) -> None:
        connection.start({MAX_CONCURRENT: 1})
        connection.next_request()
        settle(connection)
        seen.append(paths(connection))
        allow(connection, 3)
        connection.next_request(count=3)
        settle(connection)
        seen.append(paths(connection))
        allow(connection, 0)
        for stream in (1, 3, 5):
            connection.answer(stream, b"ok")
        settle(connection)
        seen.append(paths(connection))
        allow(connection, 100)
        connection.next_request(count=6)
        seen.append(paths(connection))
        for stream in (7, 9, 11):
            connection.answer(stream, b"ok")
        done.set()
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(script))
    limits = ("--upstream-h2-max-connections", "1", "--upstream-queue-timeout", "10")
    client = stage.keep(Http2Client(stage.balancer(backend, *limits).port))
    streams = [client.request(f"/{n}") for n in range(6)]
    assert [client.answer(stream).status for stream in streams] == [200] * 6
    assert done.wait(10)
    order = [f"/{n}" for n in range(6)]
    assert seen == [order[:1], order[:3], order[:3], order]


def test_connection_closed_to_new_streams_is_joined_by_another(stage: Stage) -> None:
    def closes(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        allow(connection, 0)
        connection.answer(stream, b"first")
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(closes, serve_http2()))
    balancer = stage.balancer(backend)
    assert [balancer.get("/x").body for _ in range(2)] == [b"first", b"/x"]
    assert len(backend.connections) == 2


def test_backend_that_allows_no_stream_at_all_is_503(stage: Stage) -> None:
    backend = stage.keep(Http2Backend(serve_http2(settings={MAX_CONCURRENT: 0})))
    collector = stage.collector()
    balancer = stage.balancer(backend, "--upstream-queue-timeout", "0.2", collector=collector)
    client = stage.keep(Http2Client(balancer.port))
    streams = [client.request() for _ in range(3)]
    assert [client.answer(stream).status for stream in streams] == [503] * 3
    assert {tree.span.error_type for tree in collector.wait_for_trees(3)} == {"pool_queue_timeout"}
    assert len(backend.connections) == 1


def test_backend_that_allows_streams_late_gets_its_requests(stage: Stage) -> None:
    def script(connection: Http2BackendConnection) -> None:
        connection.start({MAX_CONCURRENT: 0})
        settle(connection)
        assert not paths(connection)
        allow(connection, 1)
        connection.answer(connection.next_request().stream_id, b"late")
        connection.wait_for_end()

    balancer = stage.balancer(stage.keep(Http2Backend(script)), "--upstream-queue-timeout", "10")
    assert balancer.get().body == b"late"


def test_connections_are_limited_and_the_line_moves_on(stage: Stage) -> None:
    """Three connections of one stream each are full; a fourth request waits for a stream."""
    may_answer = threading.Event()

    def respond(connection: Http2BackendConnection, stream: int, fields: dict[str, str], body: bytes) -> None:
        assert may_answer.wait(10)
        connection.answer(stream, fields[":path"].encode())

    backend = stage.keep(Http2Backend(serve_http2(respond, {MAX_CONCURRENT: 1})))
    collector = stage.collector()
    limits = ("--upstream-h2-max-connections", "3", "--upstream-queue-timeout", "10")
    client = stage.keep(Http2Client(stage.balancer(backend, *limits, collector=collector).port))
    streams = [client.request(f"/{n}") for n in range(5)]
    wait_until(lambda: len(backend.requests) == 3, "three requests")
    may_answer.set()
    assert [client.answer(stream).body for stream in streams] == [f"/{n}".encode() for n in range(5)]
    assert len(backend.connections) == 3
    trees = collector.wait_for_trees(5)
    outcomes = [tree.one("pool_acquire").attributes["pool.outcome"] for tree in trees]
    assert outcomes.count("created") + outcomes.count("waited") == 5 and "waited" in outcomes


# Flow control


def fill(connection: Http2BackendConnection, streams: list[int]) -> int:
    """Sends on every stream until the balancer takes no more, and says how much that was."""
    sent = 0
    while True:
        before = sent
        for stream in streams:
            while (room := min(connection.h2.local_flow_control_window(stream), 16384)) > 0:
                connection.h2.send_data(stream, bytes(room))
                sent += room
            connection.flush()
        settle(connection)
        if sent == before:
            return sent


def test_slow_client_stops_the_backend(stage: Stage) -> None:
    counts: list[int] = []
    filled = threading.Event()

    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.send_fields(stream, [(":status", "200")])
        counts.append(fill(connection, [stream]))
        filled.set()
        connection.send_data(stream, b"end", ends=True)
        connection.wait_for_end()

    balancer = stage.balancer(stage.keep(Http2Backend(script)))
    client = stage.keep(Http2Client(balancer.port, holds_window=True))
    stream = client.request()
    client.wait_until(lambda: len(client.so_far(stream).body) == 65535)
    assert filled.wait(10)
    # The window of the stream, the client's own, and a buffer between them.
    assert counts[0] <= 256 * 1024 + 65535 + 2 * 65536
    client.holds_window = False
    for event in client.all(h2.events.DataReceived, stream):
        client.h2.acknowledge_received_data(event.flow_controlled_length, stream)
    client.flush()
    assert len(client.answer(stream).body) == counts[0] + 3


def hundred_responses(connection: Http2BackendConnection) -> list[int]:
    """Begins to answer a hundred requests at once, and returns their streams."""
    connection.start()
    connection.next_request(count=100)
    streams = [event.stream_id for event in connection.all(h2.events.RequestReceived)]
    for stream in streams:
        connection.send_fields(stream, [(":status", "200")])
    return streams


def test_slow_clients_leave_half_of_a_connection_to_the_others(stage: Stage) -> None:
    """A request that shares a connection with a hundred that nobody reads gets all of its body."""
    counts: list[int] = []
    filled = threading.Event()

    def script(connection: Http2BackendConnection) -> None:
        streams = hundred_responses(connection)
        fast = streams[paths(connection).index("/fast")]
        streams.remove(fast)
        counts.append(fill(connection, streams))
        filled.set()
        connection.send_data(fast, bytes(3 << 20), ends=True)
        connection.wait_for_end()

    balancer = stage.balancer(stage.keep(Http2Backend(script)))
    client = stage.keep(Http2Client(balancer.port))
    slow = stage.keep(Http2Client(balancer.port, holds_window=True))
    stream = client.request("/fast")
    for _ in range(99):
        slow.request()
    assert filled.wait(20)
    # What each stream has taken out of the window waits in a buffer for the client.
    assert counts[0] <= (8 << 20) + 99 * 2 * 65536
    assert len(client.answer(stream).body) == 3 << 20


def test_new_requests_avoid_a_connection_that_slow_clients_fill(stage: Stage) -> None:
    """A request that comes when they have filled the connection that they share gets another."""
    filled = threading.Event()

    def script(connection: Http2BackendConnection) -> None:
        fill(connection, hundred_responses(connection))
        filled.set()
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(script, serve_http2()))
    balancer = stage.balancer(backend)
    slow = stage.keep(Http2Client(balancer.port, holds_window=True))
    for _ in range(100):
        slow.request()
    assert filled.wait(20)
    assert balancer.get("/x").body == b"/x"
    assert len(backend.connections) == 2


def test_connection_that_ends_under_a_slow_client_does_not_harm_the_next(stage: Stage) -> None:
    """The response has wholly come and waits for its client, while another connection takes the place of its own."""
    has_ended = threading.Event()
    may_answer = threading.Event()

    def ends(connection: Http2BackendConnection) -> None:
        connection.start()
        connection.answer(connection.next_request().stream_id, bytes(60_000))
        connection.sock.shutdown(socket.SHUT_WR)
        connection.wait_for_end()
        has_ended.set()

    def holds(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        assert may_answer.wait(10)
        connection.answer(stream, b"held")
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(ends, holds))
    balancer = stage.balancer(backend)
    slow = stage.keep(Http2Client(balancer.port, initial_window_size=0))
    waiting = slow.request("/slow")
    assert has_ended.wait(10)
    client = stage.keep(Http2Client(balancer.port))
    held = client.request("/held")
    wait_until(lambda: len(backend.requests) == 2, "the second request")
    slow.h2.increment_flow_control_window(1 << 20, waiting)
    slow.h2.increment_flow_control_window(1 << 20)
    slow.flush()
    answer = slow.answer(waiting)
    assert answer.is_complete and len(answer.body) == 60_000
    may_answer.set()
    assert client.answer(held).body == b"held"


def test_backend_that_takes_no_body_is_504(stage: Stage) -> None:
    def script(connection: Http2BackendConnection) -> None:
        connection.holds_window = True
        connection.start()
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(script))
    collector = stage.collector()
    balancer = stage.balancer(backend, "--upstream-stall-timeout", "0.2", collector=collector)
    client = stage.keep(Http2Client(balancer.port))
    stream = client.h2.get_next_available_stream_id()
    client.wait_for(h2.events.WindowUpdated, 0)
    client.send_fields(stream, client.request_fields(method="POST"))
    client.send_data(stream, bytes(200_000))
    client.wait_until(lambda: client.so_far(stream).status > 0)
    assert client.so_far(stream).status == 504
    tree = collector.wait_for_tree()
    event = tree.one("backend_request_h2").event("stream_reset")
    assert event.attributes == {"h2.error_code": "CANCEL", "h2.reset_by": "local"}
    assert tree.span.error_type == "upstream_timeout"


def test_client_that_never_reads_is_left_and_the_stream_cancelled(stage: Stage) -> None:
    cancelled = threading.Event()

    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        stream = connection.next_request().stream_id
        connection.send_fields(stream, [(":status", "200")])
        fill(connection, [stream])
        assert connection.wait_for(h2.events.StreamReset, stream).error_code == 8
        cancelled.set()
        connection.wait_for_end()

    collector = stage.collector()
    balancer = stage.balancer(
        stage.keep(Http2Backend(script)), "--client-stall-timeout", "0.5", collector=collector
    )
    client = stage.keep(Http2Client(balancer.port, holds_window=True))
    answer = client.answer(client.request())
    assert answer.reset is not None and not answer.is_complete
    assert cancelled.wait(10)
    tree = collector.wait_for_tree()
    assert tree.span.error_type == "client_timeout"
    assert tree.one("backend_request_h2").event("stream_reset").attributes["h2.reset_by"] == "local"


# What this end finds wrong

Fields = list[tuple[str, str]]


@pytest.mark.parametrize(
    "fields",
    [
        [(":status", "200"), ("X-Upper", "a")],
        [(":status", "200"), ("connection", "close")],
        [(":status", "200"), ("transfer-encoding", "chunked")],
        [(":status", "20")],
        [("x-status", "200")],
        [(":status", "200"), (":path", "/")],
        [(":status", "200"), ("content-length", "a")],
        [(":status", "200"), ("x", "a\x00b")],
        [(":status", "101")],
    ],
    ids=lambda fields: str(fields[-1][0]).strip(":"),
)
def test_response_that_is_none_is_502_and_the_reset_is_ours(stage: Stage, fields: Fields) -> None:
    def respond(connection: Http2BackendConnection, stream: int, _: dict[str, str], body: bytes) -> None:
        connection.h2.config.validate_outbound_headers = False
        connection.h2.config.normalize_outbound_headers = False
        connection.send_fields(stream, fields)

    backend = stage.keep(Http2Backend(serve_http2(respond)))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    assert balancer.get().status == 502
    assert picture(collector.wait_for_tree()) == [
        "proxy_request 502 upstream_protocol_error ERROR",
        "  backend_selection",
        "  backend_request_h2 upstream_protocol_error retry=0 stream=1 w0-1 ERROR",
        "    * stream_reset error_code=PROTOCOL_ERROR reset_by=local",
        "    pool_acquire created",
        "    tcp_connect",
        "    h2_handshake",
    ]
    wait_until(lambda: bool(backend.connections[0].all(h2.events.StreamReset)), "RST_STREAM")
    assert [event.error_code for event in backend.connections[0].all(h2.events.StreamReset)] == [1]
    assert "taken out" not in balancer.log()


@pytest.mark.parametrize("count", [1, 7])
def test_body_of_another_length_than_announced_breaks_off(stage: Stage, count: int) -> None:
    def respond(connection: Http2BackendConnection, stream: int, _: dict[str, str], body: bytes) -> None:
        connection.send_fields(stream, [(":status", "200"), ("content-length", "5")])
        connection.send_data(stream, b"x" * count, ends=True)

    backend = stage.keep(Http2Backend(serve_http2(respond)))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    client = stage.keep(Http2Client(balancer.port))
    assert client.get().reset is not None
    tree = collector.wait_for_tree()
    assert tree.one("response_streaming").error_type == "upstream_protocol_error"
    event = tree.one("backend_request_h2").event("stream_reset").attributes
    assert event == {"h2.error_code": "PROTOCOL_ERROR", "h2.reset_by": "local"}


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda c: c.send_frame(0, 0, 0, b"data"), 1),
        (lambda c: c.send_frame(6, 0, 0, b"short"), 6),
        (lambda c: c.send_frame(1, 4, 1, b"\xff\xff\xff\xff\xff"), 9),
    ],
    ids=["data_on_0", "short_ping", "bad_hpack"],
)
def test_broken_connection_is_502_and_told_by_goaway(
    stage: Stage, spoil: Callable[[Http2BackendConnection], None], code: int
) -> None:
    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        connection.next_request()
        spoil(connection)
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(script, serve_http2()))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector)
    assert balancer.get().status == 502
    wait_until(lambda: bool(backend.connections[0].goaways), "GOAWAY")
    assert [goaway.error_code for goaway in backend.connections[0].goaways] == [code]
    tree = collector.wait_for_tree()
    assert tree.span.error_type == "upstream_protocol_error"
    assert not tree.one("backend_request_h2").events


def test_connection_that_is_lost_is_one_failure(stage: Stage) -> None:
    """However many streams were on it."""

    def script(connection: Http2BackendConnection) -> None:
        connection.start()
        connection.next_request(count=10)
        connection.close()

    backend = stage.keep(Http2Backend(script, serve_http2()))
    balancer = stage.balancer(backend)
    client = stage.keep(Http2Client(balancer.port))
    streams = [client.request(method="POST", body=b"") for _ in range(10)]
    assert {client.answer(stream).status for stream in streams} == {502}
    assert balancer.get("/x").body == b"/x"
    assert "taken out" not in balancer.log()
