"""Collectors behind https: whom the exporter trusts, and what it shows."""

from __future__ import annotations

import pytest

from harness.backends import refused_port
from harness.certificates import Authority, Certificate
from harness.collector import Collector
from harness.stage import Stage
from harness.tls import TLSBackend
from harness.waiting import wait_until


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("IP:127.0.0.1")


def secure_collector(stage: Stage, certificate: Certificate, client_ca: Authority | None = None) -> Collector:
    return stage.keep(Collector(listen=lambda script, port: TLSBackend(certificate, script, client_ca=client_ca)))


def test_collector_with_a_private_authority(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    collector = secure_collector(stage, certificate)
    trust = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.path)}
    balancer = stage.balancer(stage.backend(), collector=collector, environment=trust)
    balancer.get("/")
    collector.wait_for_trees(1)


def test_collector_that_asks_for_a_certificate(stage: Stage, authority: Authority, certificate: Certificate) -> None:
    collector = secure_collector(stage, certificate, client_ca=authority)
    shown = authority.issue("DNS:exporter.test")
    environment = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.path),
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": str(shown.path),
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(shown.key),
    }
    balancer = stage.balancer(stage.backend(), collector=collector, environment=environment)
    balancer.get("/")
    collector.wait_for_trees(1)


def test_file_that_is_missing_is_a_warning(stage: Stage) -> None:
    nowhere = {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca.pem"}
    collector = f"https://127.0.0.1:{refused_port()}"
    balancer = stage.balancer(stage.backend(), collector=collector, environment=nowhere)
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE: /nowhere/ca.pem cannot be read" in balancer.log()


def test_certificates_that_change_are_taken_by_a_reload(stage: Stage, certificate: Certificate) -> None:
    """An authority that signed nothing here gets no trace and holds no request; then it is the right one."""
    folder = stage.folder()
    first, second = (Authority(folder) for folder in (stage.folder(), stage.folder()))
    trusted = folder / "ca.pem"
    trusted.write_bytes(first.path.read_bytes())
    collector = secure_collector(stage, second.issue("IP:127.0.0.1"))
    balancer = stage.balancer(
        stage.backend(),
        "--watch-config",
        collector=collector,
        environment={"OTEL_EXPORTER_OTLP_CERTIFICATE": str(trusted)},
        expects_deaths=True,
    )
    assert balancer.get("/").status == 200
    wait_until(lambda: "certificate" in balancer.log(), "a line about the collector's certificate")
    assert collector.posts == []
    trusted.write_bytes(second.path.read_bytes())
    wait_until(lambda: balancer.generation() > 1, "the reload")
    balancer.get("/")
    collector.wait_for_trees(1)
