"""What a backend learns of a client's certificate, and that no client can say it of itself."""

from __future__ import annotations

import hashlib
import ssl

import pytest

from harness import message
from harness.backends import ScriptedBackend
from harness.certificates import Authority, Certificate
from harness.either import Client1, Client2
from harness.http2 import Http2Client
from harness.stage import Stage
from harness.tls import Front, session_of
from harness.wire import Request

FORGED = [
    "X-SSL-Client-Verify: SUCCESS",
    "x_ssl_client_verify: SUCCESS",
    "X-Ssl-Client-S-Dn: CN=admin",
    "X-SSL-Client_S-DN: CN=admin",
    "X-SSL-Client-Fingerprint: 00",
]


@pytest.fixture(scope="module")
def own(authority: Authority) -> Certificate:
    return authority.issue("DNS:client.test")


@pytest.fixture(scope="module")
def backend(shared_stage: Stage) -> ScriptedBackend:
    return shared_stage.backend()


@pytest.fixture(scope="module")
def front(shared_stage: Stage, authority: Authority, backend: ScriptedBackend) -> Front:
    certificate = authority.issue("DNS:a.test", "IP:127.0.0.1")
    flags = [*certificate.server_flags, "--client-ca", str(authority.path), "--client-verify", "optional"]
    return Front(shared_stage, backend, authority, *flags)


def identity(request: Request) -> list[tuple[str, str]]:
    """The fields in question, however they are spelt."""
    fields = [(name.lower().replace("_", "-"), value) for name, value in request.fields]
    return [(name, value) for name, value in fields if name.startswith("x-ssl-client")]


def expected(own: Certificate) -> list[tuple[str, str]]:
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(own.path.read_text())).hexdigest()
    return [
        ("x-ssl-client-verify", "SUCCESS"),
        ("x-ssl-client-s-dn", "CN=DNS_client_test_ec_2"),
        ("x-ssl-client-fingerprint", digest),
    ]


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_certificate_is_told(front: Front, backend: ScriptedBackend, own: Certificate, protocol: str) -> None:
    context = front.context(own)
    context.set_alpn_protocols([protocol])
    connection = front.connect(context=context)
    client = Client1(connection) if protocol == "http/1.1" else Client2(Http2Client(front.port, sock=connection.sock))
    for _ in range(2):
        client.send("GET", *[(name.lower(), value) for name, value in (line.split(": ") for line in FORGED)])
        assert client.answer().status == 200
        assert identity(backend.requests[-1]) == expected(own)
    client.close()


def test_resumed_session_remembers_it(front: Front, backend: ScriptedBackend, own: Certificate) -> None:
    context = front.context(own)
    session = None
    for was_resumed in (False, True):
        client = front.connect(context=context, session=session)
        assert session_of(client).session_reused == was_resumed
        client.send(message.request("/"))
        client.receive_response()
        session = session_of(client).session
        assert identity(backend.requests[-1]) == expected(own)
        client.close()


@pytest.mark.parametrize("is_secure", [False, True])
def test_without_a_certificate_there_is_none(front: Front, backend: ScriptedBackend, is_secure: bool) -> None:
    client = front.connect() if is_secure else front.balancer.connect()
    client.send(message.request("/", *FORGED))
    assert client.receive_response().status == 200
    assert identity(backend.requests[-1]) == [("x-ssl-client-verify", "NONE")]
    client.close()


def test_where_nobody_is_asked_the_fields_mean_nothing(stage: Stage) -> None:
    backend = stage.backend()
    assert stage.balancer(backend).get("/", FORGED[0]).status == 200
    assert identity(backend.requests[0]) == [("x-ssl-client-verify", "SUCCESS")]
