"""A worker that dies: what it was doing is in the trace, once, and nothing else is lost for it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from harness import message
from harness.backends import BackendConnection, hello, never_answer, serve
from harness.balancer import Balancer
from harness.collector import Collector, Gate
from harness.http2 import Http2Backend, Http2BackendConnection
from harness.spans import Tree, trees
from harness.stage import Stage
from harness.waiting import wait_until
from harness.wire import Connection

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


def in_flight(stage: Stage, balancer: Balancer, data: bytes) -> Connection:
    client = stage.client(balancer)
    client.send(data)
    return client


def crashed(collector: Collector) -> list[Tree]:
    """Trees of interrupted requests; whatever was delivered twice counts once."""
    found = [tree for tree in trees(collector.accepted_spans) if not tree.is_connection]
    return [tree for tree in found if tree.span.error_type == "worker_crashed"]


def answer_unless_unfinished(connection: BackendConnection) -> None:
    """Stays silent on a request for /unfinished."""
    while (request := connection.receive_request()).target != "/unfinished":
        connection.send(hello(request))
    connection.wait_for_end()


def wait_for_crashed(collector: Collector, count: int = 1) -> list[Tree]:
    wait_until(lambda: len(crashed(collector)) >= count, f"{count} trees of interrupted requests")
    return crashed(collector)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_request_in_flight_in_a_worker_that_dies_has_a_tree(stage: Stage, number: signal.Signals) -> None:
    backend = stage.backend(never_answer, serve(hello))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector, expects_deaths=True)
    started_ns = time.time_ns()
    traceparent = f"traceparent: 00-{TRACE_ID}-{CALLER}-01"
    client = in_flight(stage, balancer, message.request("/unfinished?secret=1", traceparent, method="PUT"))
    backend.wait_for_requests(1)
    pid = balancer.worker_pid()
    os.kill(pid, number)
    balancer.wait_for_new_worker(pid)
    client.expect_end()
    assert balancer.get("/next").status == 200
    (tree,) = wait_for_crashed(collector)
    tree.assert_sound()
    assert tree.outline() == ["proxy_request SERVER", "  backend_request CLIENT"]
    root = tree.span
    assert root.trace_id == TRACE_ID and root.parent_span_id == CALLER
    assert root.status == "ERROR" and root.status_message
    assert root.attributes["worker.signal"] == int(number)
    assert root.attributes["worker.last_phase"] == "awaiting_response"
    assert root.attributes["lb.worker"] == 0 and root.attributes["lb.generation"] == 1
    assert root.attributes["http.method"] == "PUT"
    assert root.attributes["http.url"] == "http://example.test/unfinished"
    assert root.attributes["backend.host"] == backend.address
    assert started_ns <= root.start_ns <= root.end_ns <= time.time_ns()
    (sent,) = backend.requests[0].all("traceparent")
    assert tree.one("backend_request").span_id == sent.split("-")[2], "the backend's spans have their parent"
    assert tree.one("backend_request").status == "ERROR"


def test_connections_of_a_worker_that_dies_have_a_trace(stage: Stage) -> None:
    """Two requests on one connection: both have a link there, and it says what became of it."""

    def stays_silent(connection: Http2BackendConnection) -> None:
        connection.start()
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(stays_silent))
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector, expects_deaths=True)
    for target in ("/a", "/b"):
        in_flight(stage, balancer, message.request(target))
    wait_until(lambda: len(backend.requests) == 2, "both requests")
    balancer.wait_for_new_worker(balancer.kill_worker())
    found = wait_for_crashed(collector, 2)
    (connection,) = collector.wait_for_connections(1)
    assert connection.outline() == ["upstream_connection INTERNAL"]
    span = connection.span
    assert (span.status, span.error_type) == ("ERROR", "worker_crashed")
    assert span.attributes["connection.id"] == "w0-1" and span.attributes["connection.close_reason"] == "worker_crashed"
    assert span.attributes["backend.host"] == backend.name and span.attributes["http.flavor"] == "2"
    for attempt in (tree.one("backend_request_h2") for tree in found):
        assert (attempt.link.trace_id, attempt.link.span_id) == (span.trace_id, span.span_id)
        assert attempt.link.attributes == {"connection.id": "w0-1"}
        assert span.start_ns <= attempt.start_ns and attempt.end_ns == span.end_ns


def test_without_connection_traces_a_crash_has_none(stage: Stage) -> None:
    backend, collector = stage.backend(never_answer), stage.collector()
    balancer = stage.balancer(backend, "--no-connection-traces", collector=collector, expects_deaths=True)
    in_flight(stage, balancer, message.request("/"))
    backend.wait_for_requests(1)
    balancer.wait_for_new_worker(balancer.kill_worker())
    (tree,) = wait_for_crashed(collector)
    assert tree.one("backend_request").links == [] and collector.connections == []


def test_others_are_told_as_ever_and_nobody_twice(stage: Stage) -> None:
    backend = stage.backend(answer_unless_unfinished)
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector, expects_deaths=True)
    for index in range(5):
        assert balancer.get(f"/before/{index}").status == 200
    in_flight(stage, balancer, message.request("/unfinished"))
    backend.wait_for_requests(6)
    balancer.wait_for_new_worker(balancer.kill_worker())
    for index in range(5):
        assert balancer.get(f"/after/{index}").status == 200
    wait_for_crashed(collector)
    found = collector.wait_for_trees(11)
    assert len(found) == 11
    assert [tree.span.error_type for tree in found].count("worker_crashed") == 1
    assert balancer.log().count("requests were in flight in a worker that died") == 1


def test_response_that_had_begun_is_told_with_its_status(stage: Stage) -> None:
    def begin_and_wait(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response_head("Content-Length: 1000", status="206 Partial Content") + b"begun")
        connection.wait_for_end()

    collector = stage.collector()
    balancer = stage.balancer(stage.backend(begin_and_wait), collector=collector, expects_deaths=True)
    client = in_flight(stage, balancer, message.request("/long"))
    assert client.receive_response_head().status == 206
    balancer.wait_for_new_worker(balancer.kill_worker())
    (tree,) = wait_for_crashed(collector)
    tree.assert_sound()
    assert tree.span.attributes["worker.last_phase"] == "streaming_response"
    assert tree.span.attributes["http.status_code"] == 206
    assert tree.one("backend_request").status == "UNSET"


def test_requests_that_are_not_sampled_stay_untold(stage: Stage) -> None:
    backend = stage.backend(never_answer)
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector, expects_deaths=True)
    in_flight(stage, balancer, message.request("/unsampled", f"traceparent: 00-{TRACE_ID}-{CALLER}-00"))
    in_flight(stage, balancer, message.request("/sampled"))
    backend.wait_for_requests(2)
    balancer.wait_for_new_worker(balancer.kill_worker())
    (tree,) = wait_for_crashed(collector)
    assert tree.span.trace_id != TRACE_ID


def test_many_requests_in_flight_are_all_told(stage: Stage) -> None:
    count = 100
    backend = stage.backend(never_answer)
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector, expects_deaths=True)
    for index in range(count):
        in_flight(stage, balancer, message.request(f"/{index}"))
    backend.wait_for_requests(count)
    balancer.wait_for_new_worker(balancer.kill_worker())
    found = wait_for_crashed(collector, count)
    urls = {str(tree.span.attributes["http.url"]) for tree in found}
    assert urls == {f"http://example.test/{index}" for index in range(count)}


def test_exporter_that_dies_too_loses_nothing(stage: Stage) -> None:
    """The collector holds back until the exporter, which has read it all and delivered nothing, is dead."""
    gate = Gate()
    backend = stage.backend(never_answer)
    collector = stage.collector(*[gate] * 20)
    balancer = stage.balancer(backend, collector=collector, expects_deaths=True)
    for index in range(3):
        in_flight(stage, balancer, message.request(f"/{index}"))
    backend.wait_for_requests(3)
    balancer.wait_for_new_worker(balancer.kill_worker())
    collector.wait_for_posts(1)
    dead = balancer.exporter_pid()
    os.kill(dead, signal.SIGKILL)
    balancer.wait_for_new_exporter(dead)
    gate.open()
    assert len(wait_for_crashed(collector, 3)) == 3


def test_worker_that_is_killed_while_the_exporter_is_dead(stage: Stage) -> None:
    backend = stage.backend(never_answer)
    collector = stage.collector()
    balancer = stage.balancer(backend, collector=collector, expects_deaths=True)
    in_flight(stage, balancer, message.request("/unfinished"))
    backend.wait_for_requests(1)
    exporter = balancer.exporter_pid()
    os.kill(exporter, signal.SIGKILL)
    balancer.kill_worker()
    assert len(wait_for_crashed(collector)) == 1


def test_worker_that_dies_in_the_drain_is_told_before_the_end(stage: Stage) -> None:
    backend = stage.backend(never_answer)
    collector = stage.collector()
    balancer = stage.balancer(
        backend, "--drain-timeout", "50", "--otel-batch-delay", "60", collector=collector, expects_deaths=True
    )
    client = in_flight(stage, balancer, message.request("/unfinished"))
    backend.wait_for_requests(1)
    balancer.signal(signal.SIGTERM)
    assert client.is_silent_for(0.3)
    balancer.kill_worker()
    assert balancer.wait_for_exit() == 0
    (tree,) = crashed(collector)
    assert tree.span.has_event("drain_started") is False
