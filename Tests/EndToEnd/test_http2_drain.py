"""GOAWAY frame by frame: a worker that leaves says so, waits for the echo of a PING, and says what it still serves."""

from __future__ import annotations

import signal
import socket

import pytest

from harness.balancer import Balancer
from harness.certificates import Authority, Certificate
from harness.http2 import Goaway, Http2Client, Http2Connection
from harness.stage import Stage
from harness.tls import Front
from harness.waiting import PATIENCE_S, wait_until
from test_reload import Held

PING, ACK, NO_ERROR = 6, 1, 0
FIRST = Goaway(2**31 - 1, NO_ERROR, b"")
SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)


class Silent(Http2Client):
    """A client that keeps PINGs to itself until the test answers them."""

    def __init__(self, sock: socket.socket) -> None:
        Http2Connection.__init__(self, sock, is_client=True)
        self.pings: list[bytes] = []
        self.start()

    def _without_goaways(self, data: bytes) -> bytes:
        rest, kept = super()._without_goaways(data), b""
        while rest:
            length = 9 + int.from_bytes(rest[:3], "big")
            frame, rest = rest[:length], rest[length:]
            if frame[3] == PING and not frame[4] & ACK:
                self.pings.append(frame[9:])
            else:
                kept += frame
        return kept

    def answer_ping(self) -> None:
        self.wait_until(lambda: bool(self.pings))
        self.send_frame(PING, ACK, 0, self.pings.pop(0))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("DNS:a.test")


@pytest.fixture(params=["plain", "tls"])
def held(
    request: pytest.FixtureRequest, stage: Stage, authority: Authority, certificate: Certificate
) -> tuple[Held, Balancer, Silent]:
    """A backend that waits, the balancer, and a client with one request under way, on stream 1."""
    held = Held()
    backend = stage.backend(held)
    if request.param == "plain":
        balancer = stage.balancer(backend)
        client = Silent(socket.create_connection(("127.0.0.1", balancer.port), PATIENCE_S))
    else:
        front = Front(stage, backend, authority, *certificate.server_flags)
        balancer, context = front.balancer, front.context()
        context.set_alpn_protocols(["h2"])
        client = Silent(front.connect(context=context).sock)
    balancer.expects_deaths = True
    stage.keep(client)
    assert client.request("/held") == 1
    wait_until(lambda: held.arrived == 1, "the request at the backend")
    return held, balancer, client


def end(balancer: Balancer, client: Silent, number: signal.Signals) -> None:
    client.close()
    if number == signal.SIGTERM:
        assert balancer.wait_for_exit() == 0


@SIGNALS
def test_what_comes_before_the_echo_is_served_and_what_comes_after_the_last_word_is_not(
    held: tuple[Held, Balancer, Silent], number: signal.Signals
) -> None:
    backend, balancer, client = held
    balancer.signal(number)
    assert client.wait_for_goaways(1) == [FIRST]
    crossing = client.request("/held/crossing")
    wait_until(lambda: backend.arrived == 2, "the second request at the backend")
    assert client.goaways == [FIRST], "no round trip yet, no last word"
    client.answer_ping()
    assert client.wait_for_goaways(2) == [FIRST, Goaway(crossing, NO_ERROR, b"")]
    late = client.request("/late")
    backend.open()
    assert client.answer(1).body == b"/held" and client.answer(crossing).body == b"/held/crossing"
    client.wait_for_end()
    assert len(client.goaways) == 2
    assert not client.so_far(late).status and client.so_far(late).reset is None, "not processed, by the last word"
    assert backend.arrived == 2
    end(balancer, client, number)


@SIGNALS
def test_streams_finish_before_the_echo(held: tuple[Held, Balancer, Silent], number: signal.Signals) -> None:
    backend, balancer, client = held
    balancer.signal(number)
    client.wait_for_goaways(1)
    backend.open()
    assert client.answer(1).body == b"/held"
    client.answer_ping()
    client.wait_for_end()
    assert client.goaways == [FIRST, Goaway(1, NO_ERROR, b"")]
    end(balancer, client, number)
