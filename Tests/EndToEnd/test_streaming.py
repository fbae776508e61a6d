"""Large bodies: bounded memory, backpressure, half-close and answers that come early."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from harness import message, processes
from harness.backends import BackendConnection, Script, hello, serve
from harness.balancer import Balancer
from harness.stage import Stage
from harness.waiting import wait_until
from harness.wire import Connection

BODY_BYTES = int(os.environ.get("LB_STREAM_MEGABYTES", "300")) * 1_000_000
"""More than every socket buffer between the two ends together could hold."""

BUFFERED_BYTES_MAX = 32_000_000
"""What the kernel's four socket buffers may swallow; the balancer's own share is a few KiB of it."""

MEMORY_GROWTH_KIB_MAX = 512

PIECE = bytes(range(256)) * 1024


class Flow:
    """Counts bytes through one end, so that a test can see it stall."""

    def __init__(self) -> None:
        self.bytes = 0
        self.finished = threading.Event()

    def pump_out(self, connection: Connection, length: int) -> None:
        while self.bytes < length:
            part = PIECE[: length - self.bytes]
            self.bytes += connection.sock.send(part)
        self.finished.set()

    def drain_in(self, connection: Connection, length: int) -> None:
        buffer = bytearray(1 << 18)
        while self.bytes < length:
            count = connection.sock.recv_into(buffer)
            assert count, f"the stream ended after {self.bytes} of {length} bytes"
            self.bytes += count
        self.finished.set()

    def wait_until_stalled(self) -> int:
        """Waits until nothing moves any more, and returns the bytes so far."""
        wait_until_stalled([self])
        return self.bytes


def wait_until_stalled(flows: list[Flow]) -> None:
    """Waits until every flow has begun, and none has moved between two looks."""
    last: list[int] = []

    def stalled() -> bool:
        nonlocal last
        before, last = last, [flow.bytes for flow in flows]
        threading.Event().wait(0.2)
        return all(last) and before == last

    wait_until(stalled, "the sender to feel backpressure", timeout_s=20)


def assert_memory_is_bounded(balancer: Balancer, transfer: Callable[[], None]) -> None:
    """Runs `transfer` and asserts that the worker's peak memory hardly grows."""
    worker = balancer.worker_pid()
    before = processes.rss_kib(worker)
    processes.reset_peak_rss(worker)
    transfer()
    growth = processes.peak_rss_kib(worker) - before
    assert growth < MEMORY_GROWTH_KIB_MAX, f"the worker grew by {growth} KiB"


def sends_body(flow: Flow) -> Script:
    """Answers /warm with a small body and anything else with BODY_BYTES."""

    def script(connection: BackendConnection) -> None:
        while (request := connection.receive_request()).target == "/warm":
            connection.send(message.response(PIECE))
        connection.send(message.response_head(f"Content-Length: {BODY_BYTES}"))
        flow.pump_out(connection, BODY_BYTES)
        assert request.method == "GET"

    return script


def test_large_download_through_a_slow_client_needs_little_memory(stage: Stage) -> None:
    sent, received = Flow(), Flow()
    balancer = stage.balancer(stage.backend(sends_body(sent)))
    client = stage.client(balancer)
    client.send(message.request("/warm"))
    assert client.receive_response().body == PIECE

    def transfer() -> None:
        client.send(message.request("/large"))
        client.receive_response_head()
        received.bytes = len(client.unread)
        assert sent.wait_until_stalled() < BUFFERED_BYTES_MAX
        received.drain_in(client, BODY_BYTES)
        assert sent.finished.wait(10)

    assert_memory_is_bounded(balancer, transfer)


def test_large_upload_to_a_slow_backend_needs_little_memory(stage: Stage) -> None:
    sent, received = Flow(), Flow()
    backend_may_read = threading.Event()

    def reads_late(connection: BackendConnection) -> None:
        if connection.receive_request_head().target == "/warm":
            connection.receive_exactly(len(PIECE))
            connection.send(message.response())
            connection.receive_request_head()
        received.bytes = len(connection.unread)
        assert backend_may_read.wait(30)
        received.drain_in(connection, BODY_BYTES)
        connection.send(message.response(b"all of it"))

    balancer = stage.balancer(stage.backend(reads_late))
    client = stage.client(balancer)
    client.send(message.request("/warm", method="POST", body=PIECE))
    assert client.receive_response().status == 200

    def transfer() -> None:
        client.send(message.request("/large", f"Content-Length: {BODY_BYTES}", method="POST"))
        sender = threading.Thread(target=sent.pump_out, args=(client, BODY_BYTES), daemon=True)
        sender.start()
        assert sent.wait_until_stalled() < BUFFERED_BYTES_MAX
        backend_may_read.set()
        assert client.receive_response().body == b"all of it"
        sender.join(10)

    assert_memory_is_bounded(balancer, transfer)


def test_chunked_download_needs_little_memory(stage: Stage) -> None:
    """One chunk of the whole size: a chunk must not be collected before it is passed on."""
    sent = Flow()

    def one_chunk(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.chunked_response([PIECE]))
        connection.receive_request()
        connection.send(message.response_head("Transfer-Encoding: chunked") + b"%x\r\n" % BODY_BYTES)
        sent.pump_out(connection, BODY_BYTES)
        connection.send(b"\r\n0\r\n\r\n")

    balancer = stage.balancer(stage.backend(one_chunk))
    client = stage.client(balancer)
    client.send(message.request("/"))
    assert client.receive_response().body == PIECE

    def transfer() -> None:
        client.send(message.request("/"))
        client.receive_response_head()
        total = 0
        while chunk := client.receive_chunk():
            total += len(chunk)
            client.forget()
        assert total == BODY_BYTES

    assert_memory_is_bounded(balancer, transfer)


def test_many_slow_clients_need_little_memory_each(stage: Stage) -> None:
    """Twenty stalled downloads at once stay within the same bound per connection."""
    count = 20
    flows = [Flow() for _ in range(count)]
    scripts = [sends_body(flow) for flow in flows]
    balancer = stage.balancer(stage.backend(*scripts), "--upstream-max-connections", str(count))
    worker = balancer.worker_pid()
    before = processes.rss_kib(worker)
    for client in [stage.client(balancer) for _ in range(count)]:
        client.send(message.request("/large"))
        client.receive_response_head()
    wait_until_stalled(flows)
    assert all(flow.bytes < BUFFERED_BYTES_MAX for flow in flows)
    assert (processes.rss_kib(worker) - before) / count < MEMORY_GROWTH_KIB_MAX


def test_half_closed_client_still_gets_its_answer(stage: Stage) -> None:
    may_answer = threading.Event()

    def answers_late(connection: BackendConnection) -> None:
        connection.receive_request()
        assert may_answer.wait(10)
        connection.send(message.response(b"answer"))

    backend = stage.backend(answers_late)
    client = stage.client(stage.balancer(backend, "--half-close-timeout", "10"))
    client.send(message.request("/", method="POST", body=b"whole"))
    client.half_close()
    backend.wait_for_requests(1)
    may_answer.set()
    assert client.receive_response().body == b"answer"
    client.expect_end()


def test_half_close_in_the_middle_of_a_body_ends_the_request(stage: Stage) -> None:
    backend = stage.backend()
    client = stage.client(stage.balancer(backend))
    client.send(message.request("/", "Content-Length: 10", method="POST") + b"half")
    client.half_close()
    client.sock.settimeout(5)
    try:
        answer = client.receive_to_end()
    except ConnectionResetError:
        answer = client.unread
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
    assert backend.requests == []


def test_answer_before_the_end_of_the_upload_arrives(stage: Stage) -> None:
    """The backend refuses at once and closes; the client, still sending, must see why."""

    def refuses(connection: BackendConnection) -> None:
        connection.receive_request_head()
        connection.send(message.response(b"too much", "Connection: close", status="413 Content Too Large"))
        connection.half_close()
        connection.wait_for_end()

    client = stage.client(stage.balancer(stage.backend(refuses)))
    client.send(message.request("/", "Content-Length: 1000000", method="POST") + b"x" * 1000)
    response = client.receive_response()
    assert (response.status, response.body) == (413, b"too much")


def test_rest_of_an_upload_that_was_answered_early_is_never_a_request(stage: Stage) -> None:
    """The answer says close, and neither connection carries anything more."""

    def answers_early(connection: BackendConnection) -> None:
        connection.receive_request_head()
        connection.send(message.response(b"early"))
        connection.wait_for_end()

    backend = stage.backend(answers_early, serve(hello))
    balancer = stage.balancer(backend)
    client = stage.client(balancer)
    hidden = message.request("/hidden")
    client.send(message.request("/", f"Content-Length: {len(hidden) + 5}", method="POST") + b"half.")
    response = client.receive_response()
    assert response.body == b"early" and response.closes
    client.send(hidden)
    client.expect_end()
    assert backend.connections[0].ended.wait(10), "a connection with half a request on it stays in use"
    assert balancer.get("/next").text == "/next"
    assert [request.target for request in backend.requests] == ["/next"]


def test_upload_goes_on_after_an_early_answer_begins(stage: Stage) -> None:
    """A backend may answer while it still reads, as a streaming echo does."""

    def echoes_pieces(connection: BackendConnection) -> None:
        connection.receive_request_head()
        connection.send(message.response_head("Transfer-Encoding: chunked"))
        while piece := connection.receive_chunk():
            connection.send(message.chunk(piece))
        connection.send(b"0\r\n\r\n")

    client = stage.client(stage.balancer(stage.backend(echoes_pieces)))
    client.send(message.request("/", "Transfer-Encoding: chunked", method="POST"))
    assert client.receive_response_head().is_chunked
    for piece in (b"one", b"two", b"three"):
        client.send(message.chunk(piece))
        assert client.receive_chunk() == piece
    client.send(b"0\r\n\r\n")
    assert client.receive_chunk() == b""
