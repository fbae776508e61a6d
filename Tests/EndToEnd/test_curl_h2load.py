"""Real clients and a real server: curl, h2load and httpx in front, nginx behind."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess

import httpx
import pytest

from harness.balancer import Balancer
from harness.nginx import Nginx
from harness.stage import Stage

PAGE = b"<p>page</p>\n" * 500
LARGE = os.urandom(20_000_000)


@pytest.fixture(scope="module")
def nginx(shared_stage: Stage) -> Nginx:
    return shared_stage.nginx(page=PAGE, large=LARGE)


@pytest.fixture(scope="module")
def balancer(shared_stage: Stage, nginx: Nginx) -> Balancer:
    return shared_stage.balancer(nginx, workers=2)


def url(balancer: Balancer, path: str) -> str:
    return f"http://127.0.0.1:{balancer.port}{path}"


def curl(*arguments: str) -> bytes:
    """curl's standard output; any failure fails the test."""
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "20", *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_downloads_a_file(balancer: Balancer, version: str) -> None:
    downloaded = curl(version, url(balancer, "/large"))
    assert hashlib.sha256(downloaded).digest() == hashlib.sha256(LARGE).digest()


def test_curl_downloads_a_compressed_chunked_file(balancer: Balancer) -> None:
    head = curl("--compressed", "--dump-header", "-", "--output", os.devnull, url(balancer, "/chunked/page"))
    assert b"Transfer-Encoding: chunked" in head and b"Content-Encoding: gzip" in head
    assert curl("--compressed", url(balancer, "/chunked/page")) == PAGE


def test_curl_resumes_a_download(balancer: Balancer) -> None:
    assert curl("--range", "100-199", url(balancer, "/page")) == PAGE[100:200]


def test_curl_asks_for_the_head_only(balancer: Balancer) -> None:
    assert f"Content-Length: {len(PAGE)}".encode() in curl("--head", url(balancer, "/page"))


def test_curl_revalidates(balancer: Balancer) -> None:
    modified = re.search(rb"Last-Modified: ([^\r]*)", curl("--head", url(balancer, "/page")))
    assert modified
    since = f"If-Modified-Since: {modified.group(1).decode()}"
    assert curl("--header", since, "--write-out", "%{http_code}", url(balancer, "/page")) == b"304"


def test_curl_follows_a_redirect_of_the_backend(balancer: Balancer, nginx: Nginx) -> None:
    """The backend builds its Location from the Host it got, which is the client's."""
    location = curl("--output", os.devnull, "--write-out", "%{redirect_url}", url(balancer, "/moved")).decode()
    assert location.startswith("http://127.0.0.1") and location.endswith("/small")


@pytest.mark.parametrize(
    "extra", [[], ["--header", "Transfer-Encoding: chunked"], ["--header", "Expect: 100-continue"]]
)
def test_curl_uploads(balancer: Balancer, extra: list[str], tmp_path: os.PathLike[str]) -> None:
    source = os.path.join(tmp_path, "upload")
    with open(source, "wb") as file:
        file.write(LARGE)
    assert curl(*extra, "--upload-file", source, url(balancer, "/echo")) == b"discarded\n"


def test_curl_reuses_its_connection(balancer: Balancer) -> None:
    address = url(balancer, "/small")
    counts = curl("--write-out", "%{num_connects} ", *(["--output", os.devnull, address] * 3)).split()
    assert counts == [b"1", b"0", b"0"]


def test_httpx_keeps_many_requests_apart(balancer: Balancer) -> None:
    with httpx.Client(base_url=url(balancer, "")) as client:
        for _ in range(50):
            assert client.get("/page").content == PAGE
            assert client.get("/missing").status_code == 404
            assert client.post("/echo", content=b"x" * 1000).text == "discarded\n"


def h2load(balancer: Balancer, path: str, requests: int, connections: int) -> str:
    command = ["h2load", "--h1", "-n", str(requests), "-c", str(connections), url(balancer, path)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=50).stdout


def assert_all_succeeded(report: str, requests: int) -> None:
    expected = (
        f"{requests} total, {requests} started, {requests} done, {requests} succeeded, 0 failed, 0 errored, 0 timeout"
    )
    assert expected in report, report
    assert f"{requests} 2xx, 0 3xx, 0 4xx, 0 5xx" in report, report


@pytest.mark.parametrize(
    "path, requests, connections", [("/small", 20_000, 64), ("/page", 10_000, 16), ("/large", 20, 4)]
)
def test_h2load_sees_no_failure(balancer: Balancer, path: str, requests: int, connections: int) -> None:
    assert_all_succeeded(h2load(balancer, path, requests, connections), requests)


def test_h2load_sees_no_failure_while_all_is_traced(stage: Stage, nginx: Nginx) -> None:
    """And every request has its tree: delivered, or counted as lost, of which there are none here."""
    collector = stage.collector()
    balancer = stage.balancer(nginx, "--span-buffer", "64m", collector=collector, workers=2)
    assert_all_succeeded(h2load(balancer, "/small", 3000, 32), 3000)
    balancer.close()
    assert len(collector.wait_for_trees(3000, timeout_s=20)) == 3000
