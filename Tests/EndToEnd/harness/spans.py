"""Spans as a collector received them, and the trees they form.

`Span` is plain data, equal for the protobuf and the JSON encoding of the same span. `Tree` joins
the spans of one trace below the balancer's own root.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

Value = str | bool | int | float | list["Value"] | None

CONNECTION = "upstream_connection"
"""The root of the trace of a connection to a backend."""
FLAG_HAS_IS_REMOTE = 0x100
"""The exporter knows whether the parent is remote (OTLP trace.proto, SpanFlags)."""
FLAG_IS_REMOTE = 0x200
"""The parent is remote."""


@dataclass(frozen=True)
class Event:
    name: str
    time_ns: int
    attributes: dict[str, Value]


@dataclass(frozen=True)
class Link:
    trace_id: str
    span_id: str
    flags: int
    attributes: dict[str, Value]


@dataclass(frozen=True)
class Span:
    trace_id: str
    span_id: str
    parent_span_id: str
    name: str
    kind: str
    flags: int
    trace_state: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Value]
    events: list[Event]
    links: list[Link]
    status: str
    status_message: str
    resource: dict[str, Value]
    scope: tuple[str, str]

    @property
    def error_type(self) -> Value:
        return self.attributes.get("error.type")

    def event(self, name: str) -> Event:
        """The one event called `name`."""
        found = [event for event in self.events if event.name == name]
        assert len(found) == 1, f"{len(found)} events {name} on {self.name}: {self.events}"
        return found[0]

    @property
    def link(self) -> Link:
        """The one link."""
        assert len(self.links) == 1, f"{len(self.links)} links on {self.name}"
        return self.links[0]

    def has_event(self, name: str) -> bool:
        return any(event.name == name for event in self.events)


@dataclass
class Tree:
    """A span and those below it, in order of their start."""

    span: Span
    children: list[Tree] = field(default_factory=list)

    def __iter__(self) -> Iterator[Span]:
        yield self.span
        for child in self.children:
            yield from child

    @property
    def is_connection(self) -> bool:
        """Whether this is the trace of a connection to a backend, and not of a request."""
        return self.span.name == CONNECTION

    def all(self, name: str) -> list[Span]:
        return [span for span in self if span.name == name]

    def one(self, name: str) -> Span:
        found = self.all(name)
        assert len(found) == 1, f"{len(found)} spans {name} in\n" + "\n".join(self.outline())
        return found[0]

    def outline(self) -> list[str]:
        """One line per span, indented by its depth: what tests compare."""
        lines = [f"{self.span.name} {self.span.kind}"]
        for child in self.children:
            lines += ["  " + line for line in child.outline()]
        return lines

    def assert_sound(self) -> None:
        """Asserts what holds for every tree: ids, one trace, times that nest."""
        spans = list(self)
        assert len({span.span_id for span in spans}) == len(spans), "span ids repeat"
        assert {span.trace_id for span in spans} == {self.span.trace_id}
        for span in spans:
            assert len(span.trace_id) == 32 and int(span.trace_id, 16), span
            assert len(span.span_id) == 16 and int(span.span_id, 16), span
        self._assert_times_nest()

    def _assert_times_nest(self) -> None:
        start, end = self.span.start_ns, self.span.end_ns
        assert 0 < start <= end, f"{self.span.name} runs from {start} to {end}"
        for event in self.span.events:
            assert start <= event.time_ns <= end, f"{event.name} outside {self.span.name}"
        for child in self.children:
            assert start <= child.span.start_ns and child.span.end_ns <= end, (
                f"{child.span.name} is outside {self.span.name} by "
                f"{start - child.span.start_ns} ns and {child.span.end_ns - end} ns"
            )
            child._assert_times_nest()


def trees(spans: list[Span]) -> list[Tree]:
    """Joins spans into trees. A root is a span whose parent is not among them."""
    nodes = {span.span_id: Tree(span) for span in spans}
    roots: list[Tree] = []
    for node in sorted(nodes.values(), key=lambda node: node.span.start_ns):
        parent = nodes.get(node.span.parent_span_id)
        (parent.children if parent else roots).append(node)
    return roots


def from_request(data: ExportTraceServiceRequest) -> list[Span]:
    """The spans of one decoded export request."""
    spans = []
    for resource_spans in data.resource_spans:
        resource = attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = (scope_spans.scope.name, scope_spans.scope.version)
            spans += [_span(span, resource, scope) for span in scope_spans.spans]
    return spans


def _span(span: trace_pb2.Span, resource: dict[str, Value], scope: tuple[str, str]) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        flags=span.flags,
        trace_state=span.trace_state,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=attributes(span.attributes),
        events=[Event(e.name, e.time_unix_nano, attributes(e.attributes)) for e in span.events],
        links=[Link(k.trace_id.hex(), k.span_id.hex(), k.flags, attributes(k.attributes)) for k in span.links],
        status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        status_message=span.status.message,
        resource=resource,
        scope=scope,
    )


def attributes(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    """Attributes as a dictionary; a key given twice is an error (OTLP common.proto)."""
    pairs = list(pairs)
    keys = [pair.key for pair in pairs]
    assert len(set(keys)) == len(keys), f"an attribute repeats: {keys}"
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    plain: Value = getattr(value, kind)
    return plain
