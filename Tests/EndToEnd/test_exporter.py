"""Delivery of spans: encodings, batches, retries, and a collector that does not do its part."""

from __future__ import annotations

import json
import signal
import socket
from dataclasses import asdict
from functools import partial
from typing import Any

import pytest

from harness import message, processes
from harness.backends import refused_port, serve
from harness.balancer import Balancer
from harness.collector import Behaviour, Collector, Gate, answer, close_mid_way, close_without_answer, hang, nonsense
from harness.spans import Tree
from harness.stage import Stage
from harness.waiting import poll, wait_until

NEVER = "60"
"""A batch delay that no test waits for."""

SPANS_OF_FIRST, SPANS_OF_OTHERS = 7, 6
"""A first request also connects."""


def send(balancer: Balancer, count: int, prefix: str = "") -> None:
    """`count` requests one after the other, on one connection."""
    client = balancer.connect()
    for number in range(count):
        client.send(message.request(f"/{prefix}{number}"))
        assert client.receive_response().status == 200
    client.close()


def targets(trees: list[Tree]) -> list[str]:
    return [str(tree.span.attributes["http.url"]).removeprefix("http://example.test") for tree in trees]


# Encodings


def test_protobuf_and_json_give_equal_spans(stage: Stage) -> None:
    backend = stage.backend(serve(lambda request: message.response(b"x", status="404 Not Found")))
    shapes = [_shape(stage, backend.address, protocol) for protocol in ("http/protobuf", "http/json")]
    assert shapes[0] == shapes[1]


def _shape(stage: Stage, backend: str, protocol: str) -> list[dict[str, Any]]:
    """The spans of one failover and one plain request, without what differs from run to run."""
    collector = stage.collector()
    balancer = stage.balancer(["127.0.0.1:1", backend], "--otel-protocol", protocol, collector=collector)
    parent = f"traceparent: 00-{'a' * 32}-{'b' * 16}-01"
    for number in range(2):
        balancer.get(f"/{number}?\xc3\xbc", parent, "tracestate: k=v")
    found = collector.wait_for_trees(2)
    expected = "application/json" if protocol == "http/json" else "application/x-protobuf"
    assert {post.content_type for post in collector.posts} == {expected}
    return [_without_accidents(asdict(span)) for tree in found for span in tree]


def _without_accidents(span: dict[str, Any]) -> dict[str, Any]:
    for key in ("span_id", "parent_span_id", "start_ns", "end_ns", "resource"):
        del span[key]
    for event in span["events"]:
        del event["time_ns"]
    for link in span["links"]:
        del link["trace_id"], link["span_id"]
    if span["kind"] == "SERVER":
        del span["attributes"]["net.peer.port"]
    return span


def test_json_follows_the_otlp_mapping(stage: Stage) -> None:
    """What a lenient decoder forgives: hex ids, 64-bit integers as strings, enums as numbers."""
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), "--otel-protocol", "http/json", collector=collector)
    balancer.get("/")
    collector.wait_for_trees(1)
    (resource,) = json.loads(collector.posts[0].body)["resourceSpans"]
    for span in resource["scopeSpans"][0]["spans"]:
        assert len(span["traceId"]) == 32 and len(span["spanId"]) == 16
        assert isinstance(span["startTimeUnixNano"], str) and isinstance(span["endTimeUnixNano"], str)
        assert isinstance(span["kind"], int) and isinstance(span["flags"], int)
        for attribute in span["attributes"]:
            assert isinstance(attribute["value"].get("intValue", ""), str)


# Batches


def test_batch_goes_out_when_enough_spans_wait(stage: Stage) -> None:
    collector = stage.collector()
    flags = ["--otel-batch-delay", NEVER, "--otel-batch-size", str(SPANS_OF_FIRST + 4 * SPANS_OF_OTHERS)]
    balancer = stage.balancer(stage.backend(), *flags, collector=collector)
    send(balancer, 5)
    assert targets(collector.wait_for_trees(5)) == [f"/{number}" for number in range(5)]


def test_batch_goes_out_when_the_oldest_span_is_old_enough(stage: Stage) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), "--otel-batch-size", "100000", collector=collector)
    send(balancer, 1)
    assert targets(collector.wait_for_trees(1)) == ["/0"]


def test_spans_travel_together(stage: Stage) -> None:
    collector = stage.collector()
    flags = ["--otel-batch-delay", "1", "--otel-batch-size", "100000"]
    balancer = stage.balancer(stage.backend(), *flags, collector=collector)
    send(balancer, 200)
    collector.wait_for_trees(200)
    assert len(collector.posts) < 20


def test_every_tree_arrives_once_under_load(stage: Stage) -> None:
    collector = stage.collector()
    balancer = stage.balancer([stage.backend(), stage.backend()], collector=collector, workers=2)
    for batch in range(10):
        send(balancer, 100, f"{batch}/")
    found = collector.wait_for_trees(1000)
    assert len(set(targets(found))) == 1000
    spans = [span for post in collector.posts for span in post.spans]
    assert len({span.span_id for span in spans}) == len(spans), "nothing failed, so nothing is sent twice"


def test_posts_share_a_connection(stage: Stage) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=collector)
    for number in range(4):
        send(balancer, 1, f"{number}/")
        collector.wait_for_trees(number + 1)
    assert {post.connection for post in collector.posts} == {0}


def test_shutdown_flushes(stage: Stage) -> None:
    collector = stage.collector()
    flags = ["--otel-batch-delay", NEVER, "--otel-batch-size", "100000"]
    balancer = stage.balancer(stage.backend(), *flags, collector=collector)
    send(balancer, 30)
    assert collector.posts == []
    balancer.close()
    assert len(collector.wait_for_trees(30)) == 30


def test_shutdown_does_not_wait_for_ever_for_a_dead_collector(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), collector=stage.collector(*[hang] * 100))
    send(balancer, 3)
    balancer.signal(signal.SIGTERM)
    assert balancer.wait_for_exit(timeout_s=20) == 0


# A collector that misbehaves


@pytest.mark.parametrize(
    "behaviour",
    [
        answer("503 Service Unavailable"),
        answer("502 Bad Gateway"),
        answer("504 Gateway Timeout"),
        answer("429 Too Many Requests"),
        close_without_answer,
        hang,
    ],
    ids=["503", "502", "504", "429", "close", "hang"],
)
def test_failed_post_is_tried_again_until_all_is_delivered(stage: Stage, behaviour: Behaviour) -> None:
    collector = stage.collector(behaviour, behaviour)
    balancer = stage.balancer(stage.backend(), "--otel-timeout", "0.5", collector=collector)
    send(balancer, 5, "a")
    collector.wait_for_posts(1)
    send(balancer, 5, "b")
    found = collector.wait_for_trees(10, timeout_s=20)
    assert sorted(targets(found)) == sorted([f"/a{n}" for n in range(5)] + [f"/b{n}" for n in range(5)])


@pytest.mark.parametrize(
    "behaviour",
    [
        nonsense,
        close_mid_way,
        answer("400 Bad Request"),
        answer("404 Not Found"),
        answer("302 Found", "Location: http://127.0.0.1:1/"),
    ],
    ids=["nonsense", "half an answer", "400", "404", "302"],
)
def test_bad_answer_affects_no_request_and_no_later_span(stage: Stage, behaviour: Behaviour) -> None:
    collector = stage.collector(behaviour)
    balancer = stage.balancer(stage.backend(), "--otel-timeout", "0.5", collector=collector)
    send(balancer, 3, "early")
    collector.wait_for_posts(1)
    send(balancer, 3, "late")
    collector.wait_for_tree(lambda tree: str(tree.span.attributes["http.url"]).endswith("/late2"))


def test_refused_spans_are_not_sent_again(stage: Stage) -> None:
    """OTLP/HTTP: a 400 must not be retried."""
    collector = stage.collector(answer("400 Bad Request"))
    balancer = stage.balancer(stage.backend(), collector=collector)
    send(balancer, 1, "bad")
    collector.wait_for_posts(1)
    send(balancer, 1, "good")
    assert targets(collector.wait_for_trees(1)) == ["/good0"]


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests"])
def test_retry_after_is_respected(stage: Stage, status: str) -> None:
    collector = stage.collector(answer(status, "Retry-After: 2"))
    balancer = stage.balancer(stage.backend(), collector=collector)
    send(balancer, 1)
    collector.wait_for_trees(1)
    first, second = collector.posts[:2]
    assert second.time_s - first.time_s >= 1.9


def test_collector_that_is_down_at_first_gets_everything(stage: Stage) -> None:
    port = refused_port()
    balancer = stage.balancer(stage.backend(), collector=f"http://127.0.0.1:{port}")
    send(balancer, 20)
    collector = stage.collector(port=port)
    assert len(collector.wait_for_trees(20, timeout_s=30)) == 20


def test_collector_that_restarts_gets_everything(stage: Stage) -> None:
    first = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=first)
    send(balancer, 5, "a")
    first.wait_for_trees(5)
    first.close()
    send(balancer, 5, "b")
    second = stage.collector(port=first.port)
    assert targets(second.wait_for_trees(5, timeout_s=30)) == [f"/b{number}" for number in range(5)]


def test_slow_collector_slows_no_request(stage: Stage) -> None:
    gate = Gate()
    collector = stage.collector(*[gate] * 10)
    balancer = stage.balancer(stage.backend(), collector=collector)
    send(balancer, 1)
    collector.wait_for_posts(1)
    send(balancer, 300, "meanwhile")
    gate.open()
    assert len(collector.wait_for_trees(301, timeout_s=20)) == 301


def test_full_ring_drops_and_counts_what_it_drops(stage: Stage) -> None:
    """Delivered and reported as lost add up to what was sent."""
    gate, total = Gate(), 3000
    collector = stage.collector(*[gate] * 50)
    flags = ["--span-buffer", "256k", "--otel-batch-size", "10"]
    balancer = stage.balancer(stage.backend(), *flags, collector=collector)
    send(balancer, total)
    gate.open()
    wait_until(lambda: _delivered(collector) > 0, "the ring to move on")
    for extra in range(10):  # the next tree that fits reports the loss
        target = f"later{extra}/"
        send(balancer, 1, target)
        poll(partial(_has_target, collector, target + "0"), timeout_s=2)
        if _delivered(collector) + _lost(collector) == total + extra + 1:
            break
    assert _delivered(collector) + _lost(collector) == total + extra + 1
    assert _lost(collector) > 0


def _has_target(collector: Collector, target: str) -> bool:
    return any(str(span.attributes.get("http.url")).endswith(target) for span in collector.accepted_spans)


def _delivered(collector: Collector) -> int:
    return sum(span.name == "proxy_request" for span in collector.accepted_spans)


def _lost(collector: Collector) -> int:
    return sum(int(str(span.attributes.get("lb.trees_lost", 0))) for span in collector.accepted_spans)


# Resource and configuration


def test_resource_tells_who_sends(stage: Stage) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), collector=collector)
    balancer.get("/")
    span = collector.wait_for_tree().span
    assert span.resource["service.name"] == "load_balancer"
    assert span.resource["process.pid"] == balancer.master
    assert span.resource["host.name"] == socket.gethostname()
    assert span.resource["service.instance.id"]
    assert span.scope == ("load_balancer", span.resource["service.version"])


def test_instance_id_is_new_at_each_start(stage: Stage) -> None:
    collector = stage.collector()
    for target in ("/a", "/b"):
        balancer = stage.balancer(stage.backend(), collector=collector)
        balancer.get(target)
        balancer.close()
    found = collector.wait_for_trees(2)
    assert len({str(tree.span.resource["service.instance.id"]) for tree in found}) == 2


ENVIRONMENT = {
    "OTEL_SERVICE_NAME": "from-name",
    "OTEL_RESOURCE_ATTRIBUTES": "service.name=from-attributes,deployment.environment=a%20b,team=x%2Cy",
}


@pytest.mark.parametrize(
    "environment, flags, name",
    [
        (ENVIRONMENT, [], "from-name"),
        ({"OTEL_RESOURCE_ATTRIBUTES": ENVIRONMENT["OTEL_RESOURCE_ATTRIBUTES"]}, [], "from-attributes"),
        (ENVIRONMENT, ["--service-name", "from-flag"], "from-flag"),
    ],
)
def test_environment_adds_to_the_resource(
    stage: Stage, environment: dict[str, str], flags: list[str], name: str
) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), *flags, collector=collector, environment=environment)
    balancer.get("/")
    resource = collector.wait_for_tree().span.resource
    assert resource["service.name"] == name
    assert (resource["deployment.environment"], resource["team"]) == ("a b", "x,y")


def test_path_of_the_endpoint_is_kept(stage: Stage) -> None:
    collector = stage.collector(path="/base/v1/traces")
    balancer = stage.balancer(stage.backend(), collector=f"{collector.endpoint}/base/")
    balancer.get("/")
    collector.wait_for_trees(1)


# Without a collector


def test_console_shows_the_tree(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), "--otel-exporter", "console", "--otel-batch-delay", "0.1")
    balancer.get("/shown?q=1")
    names = [
        "proxy_request",
        "backend_selection",
        "backend_connection",
        "pool_acquire",
        "tcp_connect",
        "backend_request",
        "response_streaming",
    ]
    wait_until(lambda: all(name in balancer.output() for name in names), "the tree on standard output")
    output = balancer.output()
    assert "/shown?q=1" in output and "200" in output
    assert "\x1b" not in output, "colours are for terminals"
    positions = [output.index(name) for name in names]
    assert positions == sorted(positions)


def test_without_tracing_there_is_no_exporter(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend())
    assert balancer.get("/").status == 200
    assert len(balancer.child_pids()) == 1
    assert all("exporter" not in processes.title(pid) for pid in balancer.child_pids())


def test_exporter_none_sends_nothing(stage: Stage) -> None:
    collector = stage.collector()
    balancer = stage.balancer(stage.backend(), "--otel-exporter", "none", collector=collector)
    send(balancer, 3)
    balancer.close()
    assert collector.posts == []
