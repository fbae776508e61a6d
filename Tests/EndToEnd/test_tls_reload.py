"""Reloads with HTTPS: new certificates are served, sessions of before are resumed, and nothing is lost."""

from __future__ import annotations

import shutil
import signal
import threading
from pathlib import Path

import pytest

from harness import message
from harness.certificates import Authority, Certificate
from harness.stage import Stage
from harness.tls import Front, session_of
from harness.waiting import wait_until

BOTH = pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2], ids=lambda number: number.name)


def replaceable(authority: Authority, folder: Path) -> Certificate:
    """A certificate in files of its own, which `renew` writes over."""
    certificate = Certificate(folder / "cert.pem", folder / "key.pem")
    renew(authority, certificate, "first")
    return certificate


def renew(authority: Authority, certificate: Certificate, name: str) -> None:
    made = authority.issue("DNS:a.test", f"DNS:{name}.test", file=name)
    shutil.copy(made.path, certificate.path)
    shutil.copy(made.key, certificate.key)


def names(front: Front) -> list[str]:
    client = front.connect()
    peer = session_of(client).getpeercert()
    client.close()
    assert peer
    return [value for _, value in peer["subjectAltName"]]


@BOTH
def test_new_certificate_and_old_sessions(stage: Stage, authority: Authority, number: signal.Signals) -> None:
    certificate = replaceable(authority, stage.folder())
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    assert names(front) == ["a.test", "first.test"]
    context = front.context()
    client = stage.keep(front.connect(context=context))
    client.send(message.request("/"))
    client.receive_response()
    session = session_of(client).session
    renew(authority, certificate, "second")
    front.balancer.reload(number)
    assert names(front) == ["a.test", "second.test"]
    again = stage.keep(front.connect(context=context, session=session))
    assert session_of(again).session_reused
    again.send(message.request("/again"))
    assert again.receive_response().text == "/again"


def test_a_certificate_that_cannot_be_used_keeps_the_old_one(stage: Stage, authority: Authority) -> None:
    certificate = replaceable(authority, stage.folder())
    front = Front(stage, stage.backend(), authority, *certificate.server_flags)
    certificate.path.write_text("no certificate")
    front.balancer.signal(signal.SIGHUP)
    wait_until(lambda: "cannot use the certificate" in front.balancer.log(), "the reason in the log")
    assert names(front) == ["a.test", "first.test"]


def test_a_renewed_certificate_is_noticed(stage: Stage, authority: Authority) -> None:
    """Without a configuration file too, and once both halves are there."""
    certificate = replaceable(authority, stage.folder())
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, "--watch-config")
    front.balancer.expects_deaths = True
    for name in ("second", "third"):
        renew(authority, certificate, name)
        wait_until(lambda name=name: names(front) == ["a.test", f"{name}.test"], f"the {name} certificate")


def test_half_of_a_renewal_changes_nothing(stage: Stage, authority: Authority) -> None:
    certificate = replaceable(authority, stage.folder())
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, "--watch-config")
    front.balancer.expects_deaths = True
    made = authority.issue("DNS:a.test", "DNS:second.test", file="second_half")
    shutil.copy(made.path, certificate.path)
    wait_until(lambda: "reload failed" in front.balancer.log(), "the attempt")
    assert names(front) == ["a.test", "first.test"]
    shutil.copy(made.key, certificate.key)
    wait_until(lambda: names(front) == ["a.test", "second.test"], "the new certificate")


def test_a_drained_connection_ends_with_close_notify(stage: Stage, authority: Authority) -> None:
    """Without it a client cannot tell an end from an attacker's (RFC 8446 §6.1)."""
    certificate = replaceable(authority, stage.folder())
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, "--log-level", "debug")
    idle, served = (stage.keep(front.connect()) for _ in range(2))
    for client in (idle, served):
        session_of(client).suppress_ragged_eofs = False
        client.send(message.request("/"))
        assert not client.receive_response().closes
    front.balancer.signal(signal.SIGTERM)
    wait_until(lambda: "msg=draining" in front.balancer.log(), "the end to begin")
    served.send(message.request("/crossing"))
    assert served.receive_response().closes
    for client in (idle, served):
        assert session_of(client).recv(100) == b""
    idle.close()
    served.close()
    assert front.balancer.wait_for_exit() == 0


def test_no_request_is_lost(stage: Stage, authority: Authority) -> None:
    certificate = replaceable(authority, stage.folder())
    front = Front(stage, stage.backend(), authority, *certificate.server_flags, workers=2)
    done = threading.Event()
    failures: list[BaseException] = []
    counts = [0] * 4

    def load(number: int) -> None:
        try:
            while not done.is_set():
                client = front.connect()
                for _ in range(5):
                    client.send(message.request("/"))
                    response = client.receive_response()
                    assert response.status == 200
                    counts[number] += 1
                    if response.closes:
                        break
                client.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        front.balancer.reload(signal.SIGHUP)
    done.set()
    for thread in threads:
        thread.join(60)
    assert not failures, failures
    assert min(counts) > 0
