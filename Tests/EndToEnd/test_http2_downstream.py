"""Clients that speak HTTP/2 in cleartext, in front of HTTP/1.1 backends."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading

import h2.events
import httpx
import pytest

from harness import message
from harness.backends import BackendConnection, ScriptedBackend, answer_then, close_at_once, echo, hello, serve
from harness.balancer import Balancer
from harness.http2 import Http2Client
from harness.nginx import Nginx
from harness.stage import Stage
from harness.waiting import wait_until

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL = 0, 1, 2, 7, 8
LARGE = os.urandom(5_000_000)
PAGE = b"<p>page</p>\n" * 500


@pytest.fixture(scope="module")
def nginx(shared_stage: Stage) -> Nginx:
    return shared_stage.nginx(page=PAGE, large=LARGE)


@pytest.fixture(scope="module")
def balancer(shared_stage: Stage, nginx: Nginx) -> Balancer:
    return shared_stage.balancer(nginx, workers=2)


def client_of(stage: Stage, balancer: Balancer, **settings: int | bool) -> Http2Client:
    return stage.keep(Http2Client(balancer.port, **settings))  # type: ignore[arg-type]


def pair(stage: Stage, *scripts: object, flags: tuple[str, ...] = ()) -> tuple[Http2Client, ScriptedBackend]:
    """A client and the backend behind the balancer between them."""
    backend = stage.backend(*scripts)  # type: ignore[arg-type]
    return client_of(stage, stage.balancer(backend, *flags)), backend


# Real clients


def curl(*arguments: str) -> bytes:
    command = ["curl", "--http2-prior-knowledge", "--silent", "--show-error", "--fail", "--max-time", "20"]
    return subprocess.run([*command, *arguments], check=True, capture_output=True).stdout


def test_curl_downloads_a_file(balancer: Balancer) -> None:
    downloaded = curl(f"http://127.0.0.1:{balancer.port}/large")
    assert hashlib.sha256(downloaded).digest() == hashlib.sha256(LARGE).digest()


def test_curl_uploads_a_file(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(serve(echo)))
    (stage.directory / "upload").write_bytes(LARGE)
    echoed = curl("--upload-file", str(stage.directory / "upload"), f"http://127.0.0.1:{balancer.port}/")
    assert echoed == LARGE


def test_h2load_gets_everything_it_asks_for(balancer: Balancer) -> None:
    url = f"http://127.0.0.1:{balancer.port}/page"
    report = subprocess.run(
        ["h2load", "-n", "5000", "-c", "8", "-m", "32", url], check=True, capture_output=True, text=True
    ).stdout
    assert "5000 succeeded, 0 failed, 0 errored" in report


def test_httpx_speaks_http2(balancer: Balancer) -> None:
    with httpx.Client(http1=False, http2=True) as client:
        answers = [client.get(f"http://127.0.0.1:{balancer.port}/page") for _ in range(3)]
    assert [(a.http_version, a.status_code, a.content) for a in answers] == [("HTTP/2", 200, PAGE)] * 3


def test_nghttp_downloads_in_parallel(balancer: Balancer) -> None:
    urls = [f"http://127.0.0.1:{balancer.port}/large?{n}" for n in range(4)]
    output = subprocess.run(["nghttp", *urls], check=True, capture_output=True).stdout
    assert len(output) == 4 * len(LARGE)


def test_both_versions_share_the_port(balancer: Balancer) -> None:
    assert balancer.get("/page").body == PAGE
    assert curl(f"http://127.0.0.1:{balancer.port}/page") == PAGE


# Requests on their way to HTTP/1.1


def test_request_arrives_as_http1(stage: Stage) -> None:
    client, backend = pair(stage)
    client.get("/a?b=c", ("accept", "*/*"), ("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"))
    request = backend.wait_for_requests(1)[0]
    assert (request.method, request.target, request.version) == ("GET", "/a?b=c", "1.1")
    assert request.get("Host") == "example.test"
    assert request.get("cookie") == "a=1; b=2"
    assert request.get("TE") == "trailers"
    assert request.get("X-Forwarded-For") == "127.0.0.1"


def test_many_streams_are_served_at_once(stage: Stage) -> None:
    everybody = threading.Barrier(20)

    def together(connection: BackendConnection) -> None:
        request = connection.receive_request()
        everybody.wait(10)
        connection.send(message.response(request.target.encode()))

    client, _ = pair(stage, together)
    streams = [client.request(f"/{n}") for n in range(20)]
    assert [client.answer(stream).body for stream in streams] == [f"/{n}".encode() for n in range(20)]


@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 1_000_000])
def test_body_with_a_length(stage: Stage, size: int) -> None:
    client, backend = pair(stage, serve(echo))
    body = os.urandom(size)
    answer = client.answer(client.request("/", ("content-length", str(size)), method="POST", body=body))
    assert answer.body == body
    assert backend.requests[0].get("content-length") == str(size)


@pytest.mark.parametrize("size", [0, 1, 1000, 1_000_000])
def test_body_without_a_length_is_chunked(stage: Stage, size: int) -> None:
    client, backend = pair(stage, serve(echo))
    body = os.urandom(size)
    assert client.answer(client.request("/", method="POST", body=body)).body == body
    assert backend.requests[0].is_chunked


def test_trailers_of_a_request_become_chunked_trailers(stage: Stage) -> None:
    client, backend = pair(stage)
    stream = client.h2.get_next_available_stream_id()
    client.send_fields(stream, client.request_fields("/", method="POST"))
    client.send_data(stream, b"hello")
    client.send_fields(stream, [("x-sum", "1")], ends=True)
    client.answer(stream)
    assert (backend.requests[0].body, backend.requests[0].trailers) == (b"hello", [("x-sum", "1")])


@pytest.mark.parametrize(
    "extra",
    [
        [("connection", "close")],
        [("keep-alive", "1")],
        [("proxy-connection", "x")],
        [("transfer-encoding", "chunked")],
        [("upgrade", "websocket")],
        [("te", "gzip")],
        [("X-Upper", "1")],
        [("host", "evil.test")],
        [("a", "b\r\nc: d")],
        [("a", "b\nc")],
        [("a", "b\0c")],
        [("a\r\nb", "1")],
        [("a b", "1")],
        [("content-length", "1"), ("content-length", "2")],
        [("content-length", "x")],
        [(":late", "1")],
        [("a", "1"), (":path", "/other")],
    ],
)
def test_malformed_request_is_reset_and_goes_nowhere(stage: Stage, extra: list[tuple[str, str]]) -> None:
    backend = stage.backend()
    client = client_of(stage, stage.balancer(backend), is_strict=False)
    answer = client.answer(client.open([*client.request_fields(), *extra]))
    assert (answer.reset, answer.status) == (PROTOCOL_ERROR, 0)
    assert client.get("/after").body == b"/after"
    assert [request.target for request in backend.requests] == ["/after"]


@pytest.mark.parametrize("path", ["", "no-slash", "/a\r\nX: y", "/a b\n", "http://example.test/"])
def test_path_that_is_none_is_refused(stage: Stage, path: str) -> None:
    backend = stage.backend()
    client = client_of(stage, stage.balancer(backend), is_strict=False)
    answer = client.answer(client.open(client.request_fields(path)))
    assert answer.reset == PROTOCOL_ERROR or answer.status == 400
    assert not backend.requests


def test_body_that_belies_its_length_is_reset(stage: Stage) -> None:
    client, _ = pair(stage)
    answer = client.answer(client.request("/", ("content-length", "5"), method="POST", body=b"123456"))
    assert answer.reset == PROTOCOL_ERROR


def test_connect_is_refused(stage: Stage) -> None:
    client, backend = pair(stage)
    answer = client.answer(client.open([(":method", "CONNECT"), (":authority", "example.test:443")]))
    assert answer.status == 405
    assert not backend.connections


def test_head_over_its_limit_is_431(stage: Stage) -> None:
    client, backend = pair(stage, flags=("--max-request-head", "2k"))
    assert client.get("/", ("x-long", "x" * 3000)).status == 431
    assert not backend.connections


def test_expectation_of_100_is_passed_on(stage: Stage) -> None:
    def says_continue(connection: BackendConnection) -> None:
        head = connection.receive_request_head()
        connection.send(message.response_head(status="100 Continue"))
        body, _ = connection.receive_framed_body(head) or (b"", [])
        connection.send(message.response(body))

    client, _ = pair(stage, says_continue)
    stream = client.h2.get_next_available_stream_id()
    fields = client.request_fields("/", ("expect", "100-continue"), ("content-length", "5"), method="POST")
    client.send_fields(stream, fields)
    client.wait_for(h2.events.InformationalResponseReceived, stream)
    client.send_data(stream, b"hello", ends=True)
    assert client.answer(stream).body == b"hello"


# Responses on their way to HTTP/2


def test_chunked_response_with_trailers(stage: Stage) -> None:
    answer = message.chunked_response([b"he", b"llo"], "Trailer: x-sum", trailers=["X-Sum: 7"])
    client, _ = pair(stage, serve(lambda _: answer))
    got = client.get()
    assert (got.body, got.trailers) == (b"hello", [("x-sum", "7")])
    assert got.get("transfer-encoding") is None


def test_response_until_close_ends_with_the_stream(stage: Stage) -> None:
    client, _ = pair(stage, answer_then(message.response_head() + b"hello", BackendConnection.close))
    assert client.get().body == b"hello"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_status_without_body(stage: Stage, status: str) -> None:
    client, _ = pair(stage, serve(lambda _: message.response_head("ETag: x", status=status)))
    got = client.get()
    assert (got.status, got.body, got.is_complete) == (int(status[:3]), b"", True)


def test_head_has_no_body(stage: Stage) -> None:
    client, _ = pair(stage, serve(lambda _: message.response_head("Content-Length: 7")))
    got = client.answer(client.request("/", method="HEAD"))
    assert (got.get("content-length"), got.body, got.is_complete) == ("7", b"", True)


def test_early_hints_are_passed_on(stage: Stage) -> None:
    hints = message.response_head("Link: </a>", status="103 Early Hints")
    client, _ = pair(stage, serve(lambda _: hints + message.response(b"ok")))
    got = client.get()
    assert (got.interim, got.body) == ([103], b"ok")


def refuses(connection: BackendConnection) -> None:
    connection.receive_request_head()
    connection.send(message.response(b"no", status="413 Content Too Large"))
    connection.wait_for_end()


def begin_upload(client: Http2Client) -> int:
    stream = client.h2.get_next_available_stream_id()
    client.send_fields(stream, client.request_fields("/", ("content-length", "2000000"), method="POST"))
    return stream


def test_upload_that_is_answered_early_may_end(stage: Stage) -> None:
    """What is still to come is taken and thrown away, more than a window of it."""
    client, _ = pair(stage, refuses, serve(hello))
    stream = begin_upload(client)
    client.wait_for(h2.events.StreamEnded, stream)
    client.send_data(stream, bytes(2_000_000), ends=True)
    assert client.get().status == 200
    got = client.so_far(stream)
    assert (got.status, got.body, got.is_complete, got.reset) == (413, b"no", True, None)


def test_answered_uploads_that_do_not_end_are_reset_when_there_are_many(stage: Stage) -> None:
    client, _ = pair(stage, refuses)
    streams = [begin_upload(client) for _ in range(17)]
    reset = client.wait_for(h2.events.StreamReset)
    assert (reset.stream_id, reset.error_code) == (streams[0], NO_ERROR)


def test_httpx_gets_an_answer_that_comes_early(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(refuses))
    with httpx.Client(http1=False, http2=True) as client:
        answer = client.put(f"http://127.0.0.1:{balancer.port}/", content=LARGE)
    assert (answer.status_code, answer.content) == (413, b"no")


def test_response_cut_short_is_a_reset(stage: Stage) -> None:
    cut = answer_then(message.response_head("Content-Length: 100") + b"some", BackendConnection.close)
    client, _ = pair(stage, cut)
    got = client.get()
    assert (got.status, got.body, got.is_complete, got.reset) == (200, b"some", False, INTERNAL_ERROR)


def test_backend_that_fails_is_502(stage: Stage) -> None:
    client, _ = pair(stage, close_at_once)
    assert client.get().status == 502


# Streams end


def test_client_that_resets_ends_the_request_at_the_backend(stage: Stage) -> None:
    def waits(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.wait_for_end()

    client, backend = pair(stage, waits, serve(hello))
    stream = client.request("/")
    connection = backend.wait_for_connections(1)[0]
    backend.wait_for_requests(1)
    client.reset(stream, CANCEL)
    assert connection.ended.wait(10)
    assert client.get("/next").body == b"/next"


def test_client_that_leaves_ends_all_its_requests(stage: Stage) -> None:
    def waits(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.wait_for_end()

    client, backend = pair(stage, waits)
    for n in range(5):
        client.request(f"/{n}")
    backend.wait_for_requests(5)
    client.close()
    assert all(connection.ended.wait(10) for connection in backend.connections)


def test_slow_client_stops_the_backend(stage: Stage) -> None:
    sent = 0

    def floods(connection: BackendConnection) -> None:
        nonlocal sent
        connection.receive_request()
        connection.send(message.response_head("Content-Length: 100000000"))
        connection.sock.settimeout(1)
        try:
            while True:
                connection.send(b"x" * 65536)
                sent += 65536
        except TimeoutError:
            connection.wait_for_end()

    backend = stage.backend(floods)
    client = client_of(stage, stage.balancer(backend), holds_window=True)
    stream = client.request("/")
    client.wait_until(lambda: len(client.so_far(stream).body) == 65535)
    assert backend.connections[0].ended.wait(0.1) is False
    wait_until(lambda: backend.connections[0].sock.gettimeout() == 1, "the backend to be stopped")
    client.close()
    assert backend.connections[0].ended.wait(10)
    assert sent < 20_000_000


def test_stream_over_the_limit_is_refused(stage: Stage) -> None:
    may_answer = threading.Event()

    def waits(connection: BackendConnection) -> None:
        request = connection.receive_request()
        may_answer.wait(10)
        connection.send(hello(request))

    client, backend = pair(stage, waits, flags=("--h2-max-concurrent-streams", "2"))
    streams = [client.request(f"/{n}") for n in range(3)]
    assert client.answer(streams[2]).reset == REFUSED_STREAM
    assert client.h2.remote_settings.max_concurrent_streams == 2
    may_answer.set()
    assert [client.answer(stream).status for stream in streams[:2]] == [200, 200]
    assert len(backend.requests) == 2


def test_last_request_of_a_connection_is_announced(stage: Stage) -> None:
    client, _ = pair(stage, flags=("--max-requests-per-connection", "2"))
    assert [client.get().status for _ in range(2)] == [200, 200]
    goaway = client.wait_for_goaways()[0]
    assert (goaway.error_code, goaway.last_stream_id) == (NO_ERROR, 3)
    client.wait_for_end()


def test_idle_connection_is_closed_with_goaway(stage: Stage) -> None:
    client, _ = pair(stage, flags=("--keep-alive-timeout", "0.2"))
    assert client.get().status == 200
    assert client.wait_for_goaways()[0].error_code == NO_ERROR
    client.wait_for_end()


# WebSocket (RFC 8441)


def test_extended_connect_reaches_an_http1_backend_as_an_upgrade(stage: Stage) -> None:
    def switches(connection: BackendConnection) -> None:
        request = connection.receive_request_head()
        assert (request.method, request.get("Upgrade"), request.get("Connection")) == ("GET", "websocket", "Upgrade")
        assert len(request.get("Sec-WebSocket-Key") or "") == 24
        fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: x", "Sec-WebSocket-Protocol: p")
        connection.send(message.response_head(*fields, status="101 Switching Protocols"))
        connection.send(connection.receive_exactly(5)[::-1])
        assert connection.receive_to_end() == b""
        connection.close()

    client, _ = pair(stage, switches)
    client.wait_for(h2.events.RemoteSettingsChanged)
    fields = [(":protocol", "websocket"), ("sec-websocket-protocol", "p"), ("sec-websocket-version", "13")]
    stream = client.h2.get_next_available_stream_id()
    client.send_fields(stream, client.request_fields("/chat", *fields, method="CONNECT"))
    head = client.wait_for(h2.events.ResponseReceived, stream)
    assert dict(head.headers)[":status"] == "200"
    assert dict(head.headers)["sec-websocket-protocol"] == "p"
    assert "sec-websocket-accept" not in dict(head.headers)
    client.send_data(stream, b"hello")
    client.wait_until(lambda: client.so_far(stream).body == b"olleh")
    client.send_data(stream, b"", ends=True)
    assert client.answer(stream).is_complete


# Drain


def test_drain_says_goodbye_in_two_steps_and_finishes_streams(stage: Stage) -> None:
    may_answer = threading.Event()

    def waits(connection: BackendConnection) -> None:
        request = connection.receive_request()
        may_answer.wait(10)
        connection.send(hello(request))

    backend = stage.backend(waits)
    balancer = stage.balancer(backend)
    client = client_of(stage, balancer)
    stream = client.request("/in-flight")
    backend.wait_for_requests(1)
    balancer.signal(signal.SIGTERM)
    first, second = client.wait_for_goaways(2)
    assert (first.last_stream_id, first.error_code) == (2**31 - 1, NO_ERROR)
    assert (second.last_stream_id, second.error_code) == (stream, NO_ERROR)
    may_answer.set()
    assert client.answer(stream).body == b"/in-flight"
    client.wait_for_end()
    client.close()
    assert balancer.wait_for_exit() == 0


def test_drain_closes_an_idle_connection(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend())
    client = client_of(stage, balancer)
    assert client.get().status == 200
    balancer.signal(signal.SIGTERM)
    client.wait_for_end()
    assert [goaway.last_stream_id for goaway in client.goaways] == [2**31 - 1, 1]
    client.close()
    assert balancer.wait_for_exit() == 0


# Frames on streams that are closed, priorities


def test_reset_of_a_closed_stream_is_ignored(stage: Stage) -> None:
    client, _ = pair(stage)
    streams = [client.request(f"/{n}") for n in range(50)]
    assert all(client.answer(stream).status == 200 for stream in streams)
    for stream in streams:
        client.send_frame(0x3, 0, stream, b"\0\0\0\x08")
    assert client.get("/after").body == b"/after"


def test_data_on_a_closed_stream_ends_the_connection(stage: Stage) -> None:
    client, _ = pair(stage)
    stream = client.request("/")
    assert client.answer(stream).status == 200
    client.send_frame(0x0, 0, stream, b"late")
    assert client.wait_for_goaways()[0].error_code == 5


def test_priority_frames_are_ignored(stage: Stage) -> None:
    client, _ = pair(stage)
    for _ in range(100):
        client.send_frame(0x2, 0, 1, b"\0\0\0\0\x10")
    assert client.get().status == 200


# The trace


def test_request_over_http2_has_the_whole_tree(stage: Stage) -> None:
    collector = stage.collector()
    client = client_of(stage, stage.balancer(stage.backend(), collector=collector))
    client.get("/traced", ("user-agent", "test"))
    tree = collector.wait_for_tree()
    assert [line.strip() for line in tree.outline()] == [
        "proxy_request SERVER",
        "backend_selection INTERNAL",
        "backend_connection INTERNAL",
        "pool_acquire INTERNAL",
        "tcp_connect INTERNAL",
        "backend_request CLIENT",
        "response_streaming INTERNAL",
    ]
    attributes = tree.span.attributes
    assert (attributes["http.flavor"], attributes["http.status_code"]) == ("2", 200)
    assert attributes["http.url"] == "http://example.test/traced"
    assert attributes["http.host"] == "example.test"
    assert attributes["http.user_agent"] == "test"
    assert attributes["http.response_content_length"] == len("/traced")
    assert tree.one("backend_request").attributes["http.flavor"] == "1.1"


def test_reset_by_the_client_is_client_closed(stage: Stage) -> None:
    def waits(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.wait_for_end()

    collector = stage.collector()
    backend = stage.backend(waits)
    client = client_of(stage, stage.balancer(backend, collector=collector))
    stream = client.request("/")
    backend.wait_for_requests(1)
    client.reset(stream)
    assert collector.wait_for_tree().span.error_type == "client_closed"
