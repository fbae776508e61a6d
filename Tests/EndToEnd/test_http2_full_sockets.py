"""HTTP/2 over TLS with peers whose sockets are full for a while: nothing that waits may depend on what they send."""

from __future__ import annotations

import array
import fcntl
import socket
import termios
import threading
import time

import h2.events
import h2.settings

from harness import message
from harness.backends import BackendConnection
from harness.certificates import Authority, Certificate
from harness.http2 import Http2Backend, Http2BackendConnection, Http2Client, Http2Connection
from harness.stage import Stage
from harness.tls import Front
from harness.waiting import PATIENCE_S, wait_until

# More than all sockets on the way hold.
BODY = bytes(6_000_000)
WINDOW = 2**31 - 1


def read_after_a_while(connection: Http2Connection, stream: int) -> int:
    """Reads nothing until more has come than the socket holds, then everything, and says nothing meanwhile."""
    wait_until(lambda: unread(connection.sock) >= 16_384, "bytes that nobody reads")
    time.sleep(0.1)  # until nothing more fits in
    connection.holds_window = True
    count = 0
    while True:
        count += sum(len(event.data) for event in connection.all(h2.events.DataReceived, stream))
        if connection.all(h2.events.StreamEnded, stream):
            return count
        connection.events.clear()
        connection.receive()


def unread(sock: socket.socket) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    return count[0]


def open_wide(connection: Http2Connection) -> None:
    """No window keeps the other side from sending."""
    connection.h2.increment_flow_control_window(2**30)
    connection.flush()


def test_client_that_reads_late_gets_everything(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    def large(connection: BackendConnection) -> None:
        connection.receive_request()
        connection.send(message.response(BODY))

    front = Front(stage, stage.backend(large), authority, *certificate.server_flags)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
    sock.settimeout(PATIENCE_S)
    sock.connect(("127.0.0.1", front.port))
    context = front.context()
    context.set_alpn_protocols(["h2"])
    tls = context.wrap_socket(sock, server_hostname="a.test")
    client = stage.keep(Http2Client(front.port, sock=tls, initial_window_size=WINDOW))
    open_wide(client)
    assert read_after_a_while(client, client.request("/")) == len(BODY)


def test_backend_that_reads_late_gets_everything(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    received: list[int] = []

    def reads_late(connection: Http2BackendConnection) -> None:
        connection.start({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
        open_wide(connection)
        stream = connection.next_request().stream_id
        received.append(read_after_a_while(connection, stream))
        connection.answer(stream)
        connection.wait_for_end()

    backend = stage.keep(Http2Backend(reads_late, certificate=certificate))
    client = stage.client(stage.balancer(backend, "--upstream-ca", str(authority.path)))
    upload = threading.Thread(target=client.send, args=[message.request("/", body=BODY, method="POST")])
    upload.start()
    assert client.receive_response().status == 200
    upload.join()
    assert received == [len(BODY)]
