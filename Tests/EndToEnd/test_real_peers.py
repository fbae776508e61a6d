"""Real servers behind and real clients in front, over HTTP/1.1 and HTTP/2, with and without TLS on either side."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from harness.certificates import Authority, Certificate
from harness.nginx import Nginx
from harness.servers import H2o, Hypercorn, Nghttpd
from harness.stage import Addressed, Stage
from harness.tls import Front

FILES = {"small": b"small\n", "large": os.urandom(3_000_000)}
UPLOAD = os.urandom(1_000_000)
Start = Callable[[Path, Certificate], Addressed]

SERVERS: Mapping[str, Start] = {
    "nginx": lambda folder, _: Nginx(folder, FILES),
    "nginx-tls": lambda folder, certificate: Nginx(folder, FILES, certificate),
    "nginx-h2c": lambda folder, _: Nginx(folder, FILES, speaks_http2=True),
    "nginx-h2-tls": lambda folder, certificate: Nginx(folder, FILES, certificate, speaks_http2=True),
    "nghttpd-h2c": lambda folder, _: Nghttpd(folder, FILES),
    "nghttpd-h2-tls": lambda folder, certificate: Nghttpd(folder, FILES, certificate),
    "h2o": lambda folder, _: H2o(folder, FILES),
    "h2o-h2c": lambda folder, _: H2o(folder, FILES, scheme="h2c://"),
    "h2o-h2-tls": lambda folder, certificate: H2o(folder, FILES, certificate, "https://"),
    "h2o-h1-tls": lambda folder, certificate: H2o(folder, FILES, certificate, "https://"),
    "hypercorn": lambda folder, _: Hypercorn(folder, FILES),
    "hypercorn-h2c": lambda folder, _: Hypercorn(folder, FILES, scheme="h2c://"),
    "hypercorn-h2-tls": lambda folder, certificate: Hypercorn(folder, FILES, certificate, "https://"),
    "hypercorn-h1-tls": lambda folder, certificate: Hypercorn(folder, FILES, certificate, "https://"),
}

CURLS = {
    "http1.1": ("http", ["--http1.1"], "1.1"),
    "h2c": ("http", ["--http2-prior-knowledge"], "2"),
    "http1.1-tls": ("https", ["--http1.1"], "1.1"),
    "h2-tls": ("https", ["--http2"], "2"),
}
"""What curl calls the version, by what it is told."""


class Setting:
    """A server behind a balancer with a plain and a TLS port."""

    def __init__(self, stage: Stage, name: str, authority: Authority, certificate: Certificate) -> None:
        self.name = name
        self.authority = authority
        server = stage.keep(SERVERS[name](stage.folder(), certificate))  # type: ignore[type-var]
        trusting = ["--upstream-ca", str(authority.path)]
        trusting += ["--upstream-alpn", "http/1.1"] if name.endswith("-h1-tls") else []
        self.front = Front(stage, server, authority, *certificate.server_flags, *trusting)

    def url(self, path: str, scheme: str = "https") -> str:
        port = self.front.port if scheme == "https" else self.front.balancer.port
        return f"{scheme}://127.0.0.1:{port}{path}"

    def curl(self, kind: str, path: str, *arguments: str, given: bytes | None = None) -> bytes:
        """What curl got, behind the version that it used."""
        scheme, flags, _ = CURLS[kind]
        command = ["curl", "-sS", "--fail", "--max-time", "20", "--cacert", str(self.authority.path), *flags]
        command += ["--write-out", "%{stderr}%{http_version}", *arguments, self.url(path, scheme)]
        done = subprocess.run(command, input=given, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert done.stderr.decode() == CURLS[kind][2]
        return done.stdout


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("DNS:localhost", "IP:127.0.0.1")


@pytest.fixture(scope="module", params=SERVERS)
def setting(
    request: pytest.FixtureRequest, shared_stage: Stage, authority: Authority, certificate: Certificate
) -> Iterator[Setting]:
    """Each server once, for all tests of this file."""
    setting = Setting(shared_stage, request.param, authority, certificate)
    yield setting
    setting.front.balancer.begin_close()


@pytest.mark.parametrize("kind", CURLS)
def test_curl(setting: Setting, kind: str) -> None:
    assert setting.curl(kind, "/small") == FILES["small"]
    assert setting.curl(kind, "/large") == FILES["large"]
    assert b"content-length: 3000000" in setting.curl(kind, "/large", "--head").lower()
    answer = setting.curl(kind, "/upload", "--data-binary", "@-", "-H", "Expect:", given=UPLOAD)
    assert answer == (b"discarded\n" if "nginx" in setting.name else UPLOAD)


def h2load(url: str, *flags: str) -> str:
    command = ["h2load", *flags, "-n", "300", "-c", "4", url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=50).stdout


def test_h2load(setting: Setting) -> None:
    """Over HTTP/1.1 h2load counts no status whose line has no words; hypercorn sends none."""
    succeeded = "300 succeeded, 0 failed, 0 errored, 0 timeout"
    assert succeeded in h2load(setting.url("/small"), "-m", "8")
    report = h2load(setting.url("/small", "http"), "--h1")
    assert (succeeded if setting.name not in ("hypercorn", "hypercorn-h1-tls") else "0 errored, 0 timeout") in report


def test_httpx(setting: Setting) -> None:
    context = setting.front.context()
    with httpx.Client(http2=True, verify=context, timeout=20) as client:
        for _ in range(3):
            answer = client.get(setting.url("/small"))
            assert (answer.http_version, answer.content) == ("HTTP/2", FILES["small"])
        answer = client.post(setting.url("/upload"), content=UPLOAD)
        assert answer.content == (b"discarded\n" if "nginx" in setting.name else UPLOAD)


def test_nghttp(setting: Setting) -> None:
    """Ten downloads at a time on one connection, over TLS and by prior knowledge."""
    for scheme in ("https", "http"):
        command = ["nghttp", "--no-verify-peer", "--null-out", "--stat", "--multiply=10", setting.url("/large", scheme)]
        report = subprocess.run(command, check=True, capture_output=True, text=True, timeout=50).stdout
        assert len(re.findall(r"\b200 +\S+ +/large", report)) == 10, report
