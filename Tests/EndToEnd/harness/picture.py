"""A span tree as a few lines of text: what the tests of a family compare whole."""

from __future__ import annotations

from collections.abc import Callable

from harness.spans import Event, Span, Tree, Value

Note = Callable[[dict[str, Value]], str]


def picture(tree: Tree) -> list[str]:
    """One line per span and event, with what tells the attempts of a request apart."""
    return _lines(tree, "")


def _lines(tree: Tree, indent: str) -> list[str]:
    lines = [indent + _span(tree.span)]
    lines += [f"{indent}  * {_event(event)}" for event in tree.span.events]
    for child in tree.children:
        lines += _lines(child, indent + "  ")
    return lines


def _span(span: Span) -> str:
    attributes = span.attributes
    words = [span.name]
    for key in ("http.status_code", "pool.outcome", "error.type"):
        if key in attributes:
            words.append(str(attributes[key]))
    if span.name == "backend_request_h2":
        words.append(f"retry={attributes['h2.retry_count']}")
        words += [f"stream={attributes['h2.stream_id']}"] if "h2.stream_id" in attributes else []
    if "connection.id" in attributes:
        words.append(str(attributes["connection.id"]))
    if attributes.get("http.body.had_error"):
        words.append("broken")
    if span.status == "ERROR":
        words.append("ERROR")
    return " ".join(words)


def _event(event: Event) -> str:
    words = [event.name]
    for key, value in sorted(event.attributes.items()):
        words.append(f"{key.split('.', 1)[1]}={value}")
    return " ".join(words)
