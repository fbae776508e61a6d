"""HTTPS towards clients: versions, names, resumption, client certificates, and the wrong protocol on a port."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from websockets.sync.client import connect as websocket_connect
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as websocket_serve

from harness import message
from harness.backends import echo, serve
from harness.balancer import free_port
from harness.certificates import Authority, Certificate
from harness.stage import Stage
from harness.tls import Front, OpenSSLConsole, session_of
from harness.waiting import wait_until


def s_client(port: int, *arguments: str, text: str = "") -> str:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.stdout + done.stderr


# Requests


def test_request_through_tls(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    backend = stage.backend()
    collector = stage.collector()
    front = Front(stage, backend, authority, *certificate.server_flags, collector=collector)
    client = stage.keep(front.connect())
    client.send(message.request("/secret?x=1", host="a.test"))
    assert client.receive_response().body == b"/secret?x=1"
    assert backend.requests[0].get("X-Forwarded-Proto") == "https"
    tree = collector.wait_for_tree()
    assert tree.span.attributes["http.url"] == "https://a.test/secret?x=1"


def test_plain_port_stays_plain(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    backend = stage.backend()
    front = Front(stage, backend, authority, *certificate.server_flags)
    assert front.balancer.get("/").status == 200
    assert backend.requests[0].get("X-Forwarded-Proto") == "http"


def test_many_requests_on_a_connection(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    client = stage.keep(front.connect())
    for number in range(50):
        client.send(message.request(f"/{number}"))
        assert client.receive_response().text == f"/{number}"


def test_pipelined_requests(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    client = stage.keep(front.connect())
    client.send(b"".join(message.request(f"/{number}") for number in range(20)))
    assert [client.receive_response().text for _ in range(20)] == [f"/{number}" for number in range(20)]


def test_large_bodies_both_ways(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front = Front(stage, stage.backend(serve(echo)), authority, *certificate.server_flags)
    body = bytes(range(256)) * 20_000
    done = subprocess.run(
        ["curl", "-sS", "--http1.1", "--cacert", str(authority.path), "--data-binary", "@-"]
        + [f"https://127.0.0.1:{front.port}/echo"],
        input=body,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == body


def test_a_byte_at_a_time(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    client = stage.keep(front.connect())
    client.send_slowly(message.request("/slow"))
    assert client.receive_response().text == "/slow"


def test_close_is_announced(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    """Python reads b"" only after close_notify; a bare FIN would raise SSLEOFError."""
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    client = stage.keep(front.connect())
    client.send(message.request("/", "Connection: close"))
    client.receive_response()
    assert client.receive_to_end() == b""


def test_h2load_over_tls(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, workers=2)
    done = subprocess.run(
        ["h2load", "--h1", "-n", "2000", "-c", "20", f"https://127.0.0.1:{front.port}/"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "2000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout + done.stderr


def test_http2_is_agreed_on(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    backend = stage.backend()
    collector = stage.collector()
    front = Front(stage, backend, authority, *certificate.server_flags, collector=collector)
    command = ["curl", "-sS", "--http2", "--cacert", str(authority.path), "-w", " %{http_version}"]
    urls = [f"https://127.0.0.1:{front.port}/{number}" for number in range(2)]
    done = subprocess.run([*command, *urls], capture_output=True, text=True, timeout=20)
    assert done.stdout == "/0 2/1 2", done.stderr
    assert [request.get("X-Forwarded-Proto") for request in backend.requests] == ["https", "https"]
    root = collector.wait_for_trees(2)[0].span
    assert root.attributes["http.flavor"] == "2"
    assert str(root.attributes["http.url"]).startswith("https://127.0.0.1:")


def test_h2load_over_http2(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, workers=2)
    done = subprocess.run(
        ["h2load", "-n", "2000", "-c", "8", "-m", "16", f"https://127.0.0.1:{front.port}/"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "2000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout + done.stderr
    assert "Application protocol: h2" in done.stdout


def test_tls_port_alone_is_the_only_one(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    backend = stage.backend()
    directory = stage.folder()
    port = free_port()
    flags = ["--backend", backend.address, "--address", "127.0.0.1", "--workers", "1", "--tls-port", str(port)]
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([stage.binary, *flags, *certificate.server_flags], stderr=log)
    try:
        wait_until(lambda: b"ready" in (directory / "log").read_bytes(), "the balancer to be ready")
        context = ssl.create_default_context(cafile=str(authority.path))
        with socket.create_connection(("127.0.0.1", port)) as plain:
            with context.wrap_socket(plain, server_hostname="a.test") as client:
                client.sendall(message.request("/only", "Connection: close"))
                assert client.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_websocket_over_tls(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    def echo_messages(connection: ServerConnection) -> None:
        for received in connection:
            connection.send(received)

    with websocket_serve(echo_messages, "127.0.0.1", 0, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.socket.getsockname()[1]}"
        front = Front(stage, [address], authority, *certificate.server_flags)
        url = f"wss://127.0.0.1:{front.port}/"
        with websocket_connect(url, ssl=front.context(), max_size=None, close_timeout=10) as client:
            for size in (0, 1, 20_000, 1_000_000):
                client.send(b"x" * size)
                assert client.recv(timeout=20) == b"x" * size
        assert client.close_code == 1000
        server.shutdown()


class Typist(OpenSSLConsole):
    """openssl s_client."""

    def __init__(self, port: int, *arguments: str) -> None:
        super().__init__("s_client", "-connect", f"127.0.0.1:{port}", "-crlf", *arguments)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_client_that_wants_small_records(
    stage: Stage, authority: Authority, certificate: Certificate, version: str
) -> None:
    """max_fragment_length (RFC 6066 §4): a response takes many records."""
    backend = stage.backend(serve(lambda request: message.response(b"x" * 5000 + b"end")))
    front = Front(stage, backend, authority, *certificate.server_flags)
    client = stage.keep(Typist(front.port, version, "-maxfraglen", "512", "-alpn", "http/1.1"))
    client.wait_for(b"Verif")
    for _ in range(2):
        client.output = b""
        client.type("GET / HTTP/1.1\nHost: a.test\n\n")
        client.wait_for(b"xend")
        assert client.output.count(b"x") >= 5000


def test_key_updates(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    """New keys from the client, with and without asking for ours (RFC 8446 §4.6.3)."""
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    client = stage.keep(Typist(front.port, "-tls1_3"))
    client.wait_for(b"Verif")
    for number, command in enumerate(["k", "K", "K"]):
        client.type(f"{command}\n")
        client.wait_for(b"KEYUPDATE")
        client.output = b""
        client.type(f"GET /{number} HTTP/1.1\nHost: a.test\n\n")
        client.wait_for(f"/{number}".encode())


def test_key_updates_without_data_are_bounded(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    client = stage.keep(Typist(front.port, "-tls1_3"))
    client.wait_for(b"Verif")
    with pytest.raises((AssertionError, OSError)):
        for _ in range(100):
            client.type("K\n")
            client.wait_for(b"KEYUPDATE")
            client.output = b""


def test_alert_arrives_though_more_was_sent(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    with socket.create_connection(("127.0.0.1", front.port), 20) as client:
        client.sendall(b"\x16\x03\x01\0\4\x63\0\0\0" + bytes(100_000))
        received = b""
        while data := client.recv(65536):
            received += data
    assert received[:3] == b"\x15\x03\x03" and len(received) == 7


def test_renegotiation_is_refused(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    client = stage.keep(Typist(front.port, "-tls1_2"))
    client.wait_for(b"Verif")
    client.type("R\n")
    client.wait_for(b"no renegotiation")


# The wrong protocol


def test_plain_http_on_the_tls_port_is_told_so(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    collector = stage.collector()
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, collector=collector)
    with socket.create_connection(("127.0.0.1", front.port), 20) as client:
        client.sendall(message.request("/"))
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"this port speaks TLS; use https" in answer
    assert collector.wait_for_tree().span.error_type == "plain_http_on_tls_port"


def test_tls_on_the_plain_port_is_logged(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    with pytest.raises(OSError):
        with socket.create_connection(("127.0.0.1", front.balancer.port), 20) as plain:
            front.context().wrap_socket(plain, server_hostname="a.test")
    wait_until(lambda: "speaks TLS on a port for plain HTTP" in front.balancer.log(), "a line in the log")
    assert front.balancer.get("/").status == 200


def test_a_silent_client_is_given_up(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    flags = ["--tls-handshake-timeout", "0.2"]
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, *flags)
    with socket.create_connection(("127.0.0.1", front.port), 20) as client:
        assert client.recv(1) == b""


# Versions and names


def test_versions(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    assert "Protocol  : TLSv1.2" in s_client(front.port, "-tls1_2")
    assert "New, TLSv1.3" in s_client(front.port, "-tls1_3")
    assert "alert protocol version" in s_client(front.port, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")


def test_minimum_version(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, "--tls-min-version", "1.3")
    assert "alert protocol version" in s_client(front.port, "-tls1_2")
    assert "New, TLSv1.3" in s_client(front.port)


def test_ciphers(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    flags = ["--tls-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384:TLS_AES_256_GCM_SHA384"]
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, *flags)
    assert "Cipher is TLS_AES_256_GCM_SHA384" in s_client(front.port)
    assert "Cipher is ECDHE-ECDSA-AES256-GCM-SHA384" in s_client(front.port, "-tls1_2")
    assert "handshake failure" in s_client(front.port, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")


def test_certificate_is_chosen_by_name(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    wild = authority.issue("DNS:*.b.test")
    exact = authority.issue("DNS:x.b.test")
    certificates = [*certificate.server_flags, *wild.server_flags, *exact.server_flags]
    front = Front(stage, stage.backend(), authority, *certificates)
    names = {"a.test": "a.test", "y.b.test": "*.b.test", "x.b.test": "x.b.test"}
    for name, expected in names.items():
        client = stage.keep(front.connect(name))
        peer = session_of(client).getpeercert()
        assert peer and expected in [value for _, value in peer["subjectAltName"]]
    assert "CN = DNS_a_test" in s_client(front.port, "-servername", "other.test").replace("CN=", "CN = ")


def test_ecdsa_and_rsa_for_one_name(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    rsa = authority.issue("DNS:a.test", "IP:127.0.0.1", rsa=True)
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, *rsa.server_flags)
    assert "Peer signature type: ECDSA" in s_client(front.port)
    assert "Peer signature type: RSA" in s_client(front.port, "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256")


# Resumption


def resumes(front: Front, version: ssl.TLSVersion) -> None:
    context = front.context()
    context.minimum_version = context.maximum_version = version
    first = front.connect(context=context)
    first.send(message.request("/"))
    first.receive_response()
    session = session_of(first).session
    first.close()
    workers = set()
    for _ in range(12):
        again = front.connect(context=context, session=session)
        assert session_of(again).session_reused
        again.send(message.request("/"))
        again.receive_response()
        workers.add(again.sock.getsockname()[1])
        again.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_resume_whichever_worker_is_hit(
    stage: Stage, authority: Authority, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    collector = stage.collector()
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, workers=3, collector=collector)
    resumes(front, version)
    spans = collector.wait_for_trees(13)
    assert len({tree.span.attributes["lb.worker"] for tree in spans}) > 1, "one worker only: nothing was shown"


# Client certificates and staples


def test_client_certificate_required(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    flags = ["--client-ca", str(authority.path)]
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, *flags)
    client = stage.keep(front.connect(context=front.context(authority.issue("DNS:client.test"))))
    client.send(message.request("/"))
    assert client.receive_response().status == 200
    with pytest.raises(ssl.SSLError, match="certificate.required|CERTIFICATE_REQUIRED"):
        refused = stage.keep(front.connect())
        refused.send(message.request("/"))
        refused.receive_response()


def test_client_certificate_optional(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    flags = ["--client-ca", str(authority.path), "--client-verify", "optional"]
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, *flags)
    client = stage.keep(front.connect())
    client.send(message.request("/"))
    assert client.receive_response().status == 200


def test_client_certificate_of_a_stranger(
    stage: Stage, authority: Authority, certificate: Certificate, tmp_path: Path
) -> None:
    flags = ["--client-ca", str(authority.path), "--client-verify", "optional"]
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, *flags)
    stranger = Authority(tmp_path / "other", "other").issue("DNS:client.test")
    with pytest.raises(ssl.SSLError):
        refused = stage.keep(front.connect(context=front.context(stranger)))
        refused.send(message.request("/"))
        refused.receive_response()


def test_staple(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    staple = authority.staple(certificate)
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, "--tls-ocsp", str(staple))
    assert "OCSP Response Status: successful" in s_client(front.port, "-status")
    assert "OCSP Response Status" not in s_client(front.port)


# Start


@pytest.mark.parametrize("how", [[], ["--check"]])
def test_problems_are_named_at_start(
    stage: Stage, authority: Authority, certificate: Certificate, how: list[str]
) -> None:
    other = authority.issue("DNS:other.test")
    missing = ["--tls-cert", "/nowhere/cert.pem", "--tls-key", str(certificate.key)]
    wrong = ["--tls-cert", str(certificate.path), "--tls-key", str(other.key)]
    for flags, expected in [
        (missing, "cannot use the certificate /nowhere/cert.pem: No such file or directory"),
        (wrong, f"the key {other.key} does not belong to the certificate {certificate.path}"),
        ([*certificate.server_flags, "--client-ca", str(certificate.key)], f"cannot use the CA file {certificate.key}"),
        ([], "--tls-port needs a certificate"),
    ]:
        command = [stage.binary, "--backend", "127.0.0.1:1", "--tls-port", "0", *flags, *how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == 2
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1


def test_expired_certificate_is_a_warning(stage: Stage, authority: Authority) -> None:
    """As in nginx: clients refuse it, which is their business."""
    expired = authority.issue("DNS:a.test", days=-1)
    command = [stage.binary, "--backend", "127.0.0.1:1", "--tls-port", "0", *expired.server_flags, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert f"the certificate {expired.path} has expired" in done.stderr


def test_drain_finishes_what_runs(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    backend = stage.backend(lambda connection: None)
    front = Front(stage, backend, authority, *certificate.server_flags)
    client = stage.keep(front.connect())
    client.send(message.request("/"))
    [connection] = backend.wait_for_connections(1)
    connection.receive_request()
    front.balancer.signal(signal.SIGTERM)
    connection.send(message.response(b"late"))
    assert client.receive_response().body == b"late"
    client.close()
    assert front.balancer.wait_for_exit() == 0
