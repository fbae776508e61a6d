"""Holds what clients saw against the spans that arrived: every request once, every tree whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from perf.soaking.clients import Tally

ROOT = "proxy_request"
CONNECTION = "upstream_connection"
CRASHED = "worker_crashed"

REUSED = Counter(
    {ROOT: 1, "backend_selection": 1, "backend_connection": 1, "pool_acquire": 1, "backend_request": 1,
     "response_streaming": 1})
CONNECTED = REUSED + Counter({"tcp_connect": 1})


@dataclass
class Trees:
    """What arrived, duplicates removed by span id."""

    spans: int = 0
    duplicates: int = 0
    whole: Counter[str] = field(default_factory=Counter)
    """Targets of trees that ended in an answer, all spans present."""
    crashed: Counter[str] = field(default_factory=Counter)
    """Targets of requests that a dead worker left behind."""
    broken: list[str] = field(default_factory=list)
    """Trees that are neither."""
    connections: dict[bytes, int] = field(default_factory=dict)
    """Traces of connections to backends, with the number of requests that they say were answered."""
    lost_connections: int = 0
    """Traces of connections that a dead worker left behind."""
    linked: Counter[bytes] = field(default_factory=Counter)
    """How many whole trees link to each."""
    drained: int = 0
    """Requests that were under way when their worker was told to drain."""


def read_trees(bodies: Iterable[bytes]) -> Trees:
    """Decodes with the official definitions."""
    found = Trees()
    unique: dict[bytes, Span] = {}
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found.duplicates += span.span_id in unique
                    unique[span.span_id] = span
    found.spans = len(unique)
    by_trace: dict[bytes, list[Span]] = {}
    for span in unique.values():
        by_trace.setdefault(span.trace_id, []).append(span)
    for spans in by_trace.values():
        _sort(spans, found)
    return found


def _sort(spans: list[Span], found: Trees) -> None:
    if any(span.name == CONNECTION for span in spans):
        return _note_connection(spans, found)
    names = Counter(span.name for span in spans)
    roots = [span for span in spans if span.name == ROOT]
    if len(roots) != 1:
        found.broken.append(f"{len(roots)} roots: {dict(names)}")
        return
    attributes = {pair.key: pair.value for pair in roots[0].attributes}
    target = "/" + attributes["http.url"].string_value.partition("://")[2].partition("/")[2]
    found.drained += any(event.name == "drain_started" for event in roots[0].events)
    if "error.type" in attributes and attributes["error.type"].string_value == CRASHED:
        found.crashed[target] += 1
    elif names in (REUSED, CONNECTED) and attributes["http.status_code"].int_value == 200:
        found.whole[target] += 1
        found.linked.update(link.trace_id for span in spans for link in span.links)
    else:
        found.broken.append(f"{target}: {dict(names)}, {_texts(attributes)}")


def _note_connection(spans: list[Span], found: Trees) -> None:
    names = Counter(span.name for span in spans)
    root = next(span for span in spans if span.name == CONNECTION)
    texts = {pair.key: pair.value.string_value for pair in root.attributes}
    if names == Counter({CONNECTION: 1}) and texts.get("error.type") == CRASHED:
        found.lost_connections += 1
        return
    if names != Counter({CONNECTION: 1, "tcp_connect": 1}):
        found.broken.append(f"a connection: {dict(names)}, {texts}")
        return
    answered = next(pair.value.int_value for pair in root.attributes if pair.key == "connection.requests_answered")
    found.connections[root.trace_id] = answered


def _texts(attributes: dict[str, object]) -> str:
    return ", ".join(f"{key}={str(value).strip()}" for key, value in attributes.items())


def complaints(
    tally: Tally, trees: Trees, kill_times: list[float], anonymous: int, reached_backend: set[str]
) -> list[str]:
    """What does not add up.

    - kill_times: when a worker was killed, on the monotonic clock; requests may fail for a second after that.
    - anonymous: requests for / that a load generator without numbers had answered.
    - reached_backend: targets that the backend saw; a worker had read these for certain.
    """
    found: list[str] = []
    answered = Counter(tally.answered)
    if anonymous:
        answered["/"] = anonymous
    excused = {
        failed.target for failed in tally.failed if any(0 <= failed.at_seconds - at < 1.0 for at in kill_times)}
    for failed in tally.failed:
        if failed.target not in excused:
            found.append(f"failed: {failed.target}: {failed.failure.value} {failed.detail}")
        elif failed.target in reached_backend and not _has_tree(failed.target, trees):
            found.append(f"in flight in a killed worker, and no tree says so: {failed.target}")
    for target, count in answered.items():
        # An answer whose last byte went out just before the worker was killed has a crashed tree instead.
        if trees.whole[target] + trees.crashed[target] != count:
            found.append(f"answered {count} times, {trees.whole[target]} whole and {trees.crashed[target]} "
                         f"crashed trees: {target}")
    for target, count in trees.crashed.items():
        if target not in excused and target not in answered:
            found.append(f"a crashed tree for a request that nobody sent: {target}")
    strangers = set(trees.whole) - set(answered) - excused
    found += [f"a tree for a request that nobody sent: {target}" for target in sorted(strangers)]
    found += [f"broken tree: {text}" for text in trees.broken]
    if not kill_times:
        found += _connection_complaints(trees)
    if trees.lost_connections > sum(trees.crashed.values()):
        found.append(f"{trees.lost_connections} lost connections of {sum(trees.crashed.values())} crashed trees")
    if not kill_times and trees.crashed:
        found.append(f"{sum(trees.crashed.values())} crashed trees although no worker was killed")
    return found


def _connection_complaints(trees: Trees) -> list[str]:
    """Every link leads to a connection, and connections have answered what links to them. Those of a worker that was
    killed say little, so this is for runs in which none was."""
    missing = [trace for trace in trees.linked if trace not in trees.connections]
    found = [f"links to a connection without a trace: {trace.hex()}" for trace in missing]
    for trace, answered in trees.connections.items():
        if trees.linked[trace] != answered:
            found.append(f"a connection that says {answered} answers, and {trees.linked[trace]} links: {trace.hex()}")
    if sum(trees.linked.values()) != sum(trees.whole.values()):
        found.append(f"{sum(trees.whole.values())} whole trees with {sum(trees.linked.values())} links")
    return found


def unread(tally: Tally, trees: Trees) -> int:
    """Failed requests without any tree: their bytes were in a socket that the killed worker had not read yet."""
    return sum(not _has_tree(failed.target, trees) for failed in tally.failed)


def _has_tree(target: str, trees: Trees) -> bool:
    return trees.crashed[target] + trees.whole[target] > 0
