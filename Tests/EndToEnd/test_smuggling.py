"""Messages that can be read in two ways are refused, and never reach the other side.

RFC 9112 §11.2 tells why: whoever reads them differently from the balancer serves a request that the
balancer never saw. Every case here carries such a hidden request.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness import message
from harness.backends import BackendConnection, ScriptedBackend, hello, serve
from harness.balancer import Balancer
from harness.stage import Stage

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\n"
GET = b"GET / HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b"5\r\nhello\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Front:
    balancer: Balancer
    backend: ScriptedBackend


@pytest.fixture(scope="module")
def front(shared_stage: Stage) -> Front:
    backend = shared_stage.backend(serve(hello))
    return Front(shared_stage.balancer(backend), backend)


REFUSED_HEADS: dict[str, tuple[bytes, int]] = {
    # Lengths (RFC 9112 §6.2, §6.3)
    "two different lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    "two equal lengths": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "list of lengths": (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "negative length": (POST + b"Content-Length: -5\r\n\r\n", 400),
    "signed length": (POST + b"Content-Length: +5\r\n\r\nhello", 400),
    "hexadecimal length": (POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    "length with a space inside": (POST + b"Content-Length: 1 0\r\n\r\nhello", 400),
    "length with a fraction": (POST + b"Content-Length: 5.0\r\n\r\nhello", 400),
    "empty length": (POST + b"Content-Length:\r\n\r\n", 400),
    "length beyond 64 bits": (POST + b"Content-Length: 18446744073709551621\r\n\r\nhello", 400),
    "length beyond 63 bits": (POST + b"Content-Length: 9223372036854775808\r\n\r\nhello", 400),
    "length with an underscore": (POST + b"Content-Length: 1_0\r\n\r\nhello", 400),
    "length in other digits": (POST + b"Content-Length: \xd9\xa5\r\n\r\nhello", 400),
    # Length and transfer coding (RFC 9112 §6.1)
    "length, then chunked": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY, 400),
    "chunked, then length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + BODY, 400),
    "length zero and chunked": (POST + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY, 400),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY, 400),
    # Transfer codings
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + BODY, 400),
    "chunked in two fields": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY, 400),
    "chunked not last": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + BODY, 400),
    "identity, then chunked": (POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY, 400),
    "empty coding": (POST + b"Transfer-Encoding:\r\n\r\n" + BODY, 400),
    "chunked with a parameter": (POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + BODY, 400),
    "chunked in quotes": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + BODY, 400),
    "chunked after a vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + BODY, 400),
    "unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n" + BODY, 501),
    "known coding we lack": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + BODY, 501),
    "identity coding": (POST + b"Transfer-Encoding: identity\r\n\r\n" + BODY, 501),
    # Field lines (RFC 9112 §5)
    "space before the colon": (POST + b"Content-Length : 5\r\n\r\nhello", 400),
    "tab before the colon": (POST + b"Transfer-Encoding\t: chunked\r\n\r\n" + BODY, 400),
    "folded line": (POST + b"X-A: b\r\n Content-Length: 5\r\n\r\nhello", 400),
    "folded line with a tab": (POST + b"Transfer-Encoding:\r\n\tchunked\r\n\r\n" + BODY, 400),
    "first field begins with a space": (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
    "line without a colon": (POST + b"Content-Length\r\n\r\n", 400),
    "empty field name": (POST + b": x\r\n\r\n", 400),
    "space inside a name": (POST + b"X A: b\r\n\r\n", 400),
    "separator in a name": (POST + b"X(A): b\r\n\r\n", 400),
    "byte above 127 in a name": (POST + b"X\xe9: b\r\n\r\n", 400),
    "NUL in a name": (POST + b"X\0A: b\r\n\r\n", 400),
    "NUL in a value": (POST + b"X-A: b\0c\r\n\r\n", 400),
    "bare CR in a value": (POST + b"X-A: b\rContent-Length: 5\r\n\r\nhello", 400),
    "bare LF in a value": (POST + b"X-A: b\nContent-Length: 5\r\n\r\nhello", 400),
    "bare LF line ends": (b"POST / HTTP/1.1\nHost: h\nContent-Length: 5\n\nhello", 400),
    "bare LF before the empty line": (GET[:-2] + b"\n\r\n", 400),
    "bare LF as the empty line": (GET + b"\n", 400),
    "CR CR LF": (GET[:-2] + b"\r\r\n\r\n", 400),
    "control character in a value": (POST + b"X-A: \x01\r\n\r\n", 400),
    "DEL in a value": (POST + b"X-A: \x7f\r\n\r\n", 400),
    # Request line (RFC 9112 §3)
    "no version": (b"GET /\r\nHost: h\r\n\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "tab instead of space": (b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "space in the target": (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "trailing space": (b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
    "leading space": (b" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "relative target": (b"GET path HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "control character in the target": (b"GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "bare CR in the request line": (b"GET / HTTP/1.1\rX: y\r\nHost: h\r\n\r\n", 400),
    "separator in the method": (b"G@T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "lower-case protocol": (b"GET / http/1.1\r\nHost: h\r\n\r\n", 400),
    "version without a dot": (b"GET / HTTP/11\r\nHost: h\r\n\r\n", 400),
    "version with two digits": (b"GET / HTTP/1.10\r\nHost: h\r\n\r\n", 400),
    "other protocol": (b"GET / ICAP/1.0\r\nHost: h\r\n\r\n", 400),
    "version 2.0": (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    "version 3.7": (b"GET / HTTP/3.7\r\nHost: h\r\n\r\n", 505),
    "version 0.9": (b"GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505),
    "HTTP/2 preface that is none": (b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n", 505),
    "binary rubbish": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    # Host (RFC 9112 §3.2)
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (GET + b"Host: other\r\n\r\n", 400),
    "two equal Hosts": (GET + b"Host: h\r\n\r\n", 400),
    "Host with a space": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "Host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "Host with userinfo": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    "list of Hosts": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", REFUSED_HEADS)
def test_ambiguous_request_never_reaches_a_backend(front: Front, name: str) -> None:
    data, status = REFUSED_HEADS[name]
    connections, received = len(front.backend.connections), front.backend.bytes_received
    client = front.balancer.connect()
    try:
        client.send(data + HIDDEN)
        response = client.receive_response()
        assert response.status == status
        assert response.closes
        client.expect_end()
    finally:
        client.close()
    assert (len(front.backend.connections), front.backend.bytes_received) == (connections, received)


REFUSED_BODIES: dict[str, bytes] = {
    "size is not hexadecimal": b"xyz\r\nhello\r\n0\r\n\r\n",
    "size is negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "size with a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "size is empty": b"\r\nhello\r\n0\r\n\r\n",
    "size with a leading space": b" 5\r\nhello\r\n0\r\n\r\n",
    "size beyond 64 bits": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size of very many digits": b"0" * 5000 + b"5\r\nhello\r\n0\r\n\r\n",
    "size ends with a bare LF": b"5\nhello\r\n0\r\n\r\n",
    "size ends with a bare CR": b"5\rhello\r\n0\r\n\r\n",
    "data longer than its size": b"4\r\nhello\r\n0\r\n\r\n",
    "data ends with a bare LF": b"5\r\nhello\n0\r\n\r\n",
    "data without its end": b"5\r\nhello0\r\n\r\n",
    "extension with a bare LF": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "extension with a bare CR": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "extension with NUL": b"5;a\0b\r\nhello\r\n0\r\n\r\n",
    "endless extension": b"5;" + b"a" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
    "trailer without a colon": b"5\r\nhello\r\n0\r\nX-A\r\n\r\n",
    "trailer with a space before the colon": b"5\r\nhello\r\n0\r\nX-A : b\r\n\r\n",
    "folded trailer": b"5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n",
    "trailer with a bare LF": b"5\r\nhello\r\n0\r\nX-A: b\n\r\n",
    "trailers beyond all measure": b"5\r\nhello\r\n0\r\n" + b"X-A: b\r\n" * 20_000 + b"\r\n",
    "last chunk with a bare LF": b"5\r\nhello\r\n0\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED_BODIES)
def test_bad_chunking_is_refused_and_hides_nothing(front: Front, name: str) -> None:
    """The head may be on its way already, but the backend never sees a whole request, nor the hidden one."""
    requests = len(front.backend.requests)
    client = front.balancer.connect()
    try:
        client.send(CHUNKED + REFUSED_BODIES[name] + HIDDEN)
        response = client.receive_response()
        assert response.status in (400, 413, 431) and response.closes
        client.expect_end()
    finally:
        client.close()
    assert front.backend.requests[requests:] == []


FORBIDDEN_TRAILERS = ["Content-Length: 5", "Transfer-Encoding: chunked", "Host: other"]


@pytest.mark.parametrize("trailer", FORBIDDEN_TRAILERS)
def test_framing_in_trailers_is_not_passed_on(front: Front, trailer: str) -> None:
    """RFC 9110 §6.5.1: such fields must not be in trailers; refusing and dropping are both right."""
    requests = len(front.backend.requests)
    response = front.balancer.exchange(message.chunked_request("/", [b"x"], trailers=[trailer]))
    seen = front.backend.requests[requests:]
    if response.status == 400:
        assert seen == []
    else:
        assert [request.trailers for request in seen] == [[]]


BAD_RESPONSES: dict[str, bytes] = {
    "two different lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n" + BODY,
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n" + BODY,
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    "folded line": b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nX-A: b\0\r\nContent-Length: 5\r\n\r\nhello",
    "bare CR in a value": b"HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 5\r\n\r\nhello",
    "no colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\nhello",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 5\r\n\r\nhello",
    "version 2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "no HTTP at all": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "rubbish": b"\xff\x00\xfe\r\n\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_ambiguous_response_is_a_bad_gateway(stage: Stage, name: str) -> None:
    def bad(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(BAD_RESPONSES[name] + message.response(b"poison"))
        connection.wait_for_end()

    backend = stage.backend(bad)
    client = stage.client(stage.balancer(backend))
    client.send(message.request("/"))
    response = client.receive_response()
    assert response.status == 502
    assert b"poison" not in response.body


def test_bytes_after_a_response_never_answer_another_request(stage: Stage) -> None:
    """A backend that sends more than one answer must not poison the next client's."""
    backend = stage.backend(serve(lambda request: message.response(b"good") + message.response(b"poison")))
    balancer = stage.balancer(backend)
    for _ in range(4):
        assert balancer.get("/").body == b"good"


def test_bytes_sent_on_an_idle_connection_never_answer_a_request(stage: Stage) -> None:
    backend = stage.backend(serve(lambda request: message.response(b"good")))
    balancer = stage.balancer(backend)
    assert balancer.get("/").body == b"good"
    backend.connections[0].send(message.response(b"poison"))
    assert backend.connections[0].ended.wait(10), "the poisoned connection is still in the pool"
    for _ in range(3):
        assert balancer.get("/").body == b"good"
