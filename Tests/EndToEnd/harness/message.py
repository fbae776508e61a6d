"""The bytes of requests and responses, written out for tests to send."""

from __future__ import annotations

from collections.abc import Iterable


def request(
    target: str = "/",
    *fields: str,
    method: str = "GET",
    body: bytes | None = None,
    version: str = "1.1",
    host: str | None = "example.test",
) -> bytes:
    """A request with Host, the given field lines, and Content-Length when there is a body."""
    lines = [f"{method} {target} HTTP/{version}"]
    lines += [f"Host: {host}"] if host is not None else []
    lines += fields
    lines += [f"Content-Length: {len(body)}"] if body is not None else []
    return _head(lines) + (body or b"")


def chunked_request(
    target: str, chunks: Iterable[bytes], *fields: str, method: str = "POST", trailers: Iterable[str] = ()
) -> bytes:
    """A request whose body comes in exactly these chunks."""
    head = request(target, "Transfer-Encoding: chunked", *fields, method=method)
    return head + chunked_body(chunks, trailers)


def response(body: bytes = b"", *fields: str, status: str = "200 OK", version: str = "1.1") -> bytes:
    """A response framed by Content-Length."""
    return response_head(f"Content-Length: {len(body)}", *fields, status=status, version=version) + body


def response_head(*fields: str, status: str = "200 OK", version: str = "1.1") -> bytes:
    """A response head with exactly these field lines."""
    return _head([f"HTTP/{version} {status}", *fields])


def chunked_response(
    chunks: Iterable[bytes], *fields: str, trailers: Iterable[str] = (), status: str = "200 OK"
) -> bytes:
    """A response whose body comes in exactly these chunks."""
    head = response_head("Transfer-Encoding: chunked", *fields, status=status)
    return head + chunked_body(chunks, trailers)


def chunked_body(chunks: Iterable[bytes], trailers: Iterable[str] = ()) -> bytes:
    """The chunks, the last chunk and the trailer section (RFC 9112 §7.1)."""
    return b"".join(map(chunk, chunks)) + b"0\r\n" + _lines(trailers) + b"\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _head(lines: Iterable[str]) -> bytes:
    return _lines(lines) + b"\r\n"


def _lines(lines: Iterable[str]) -> bytes:
    return b"".join(line.encode("latin-1") + b"\r\n" for line in lines)
