"""The access log: one line a request, in logfmt or JSON."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import h2.events
import pytest

from harness import message
from harness.backends import serve, serve_once
from harness.http2 import Http2Client
from harness.stage import Stage
from harness.waiting import wait_until
from harness.wire import PeerClosed

KEYS = ["time", "client", "method", "target", "status", "bytes", "duration_us", "backend"]


def lines_of(path: Path, count: int) -> list[str]:
    """Waits for `count` whole lines."""

    def whole_lines() -> list[str]:
        text = path.read_text() if path.exists() else ""
        return text.splitlines() if text.endswith("\n") else []

    wait_until(lambda: len(whole_lines()) >= count, f"{count} lines in the access log")
    assert len(whole_lines()) == count
    return whole_lines()


def logfmt(line: str) -> dict[str, str]:
    """A logfmt line as a dictionary; quoted values are unquoted."""
    pairs = [item.split("=", 1) for item in shlex.split(line)]
    assert all(len(pair) == 2 for pair in pairs), line
    assert len({key for key, _ in pairs}) == len(pairs), line
    return {key: value for key, value in pairs}


def test_line_tells_everything_about_a_request(stage: Stage) -> None:
    path = stage.folder() / "access.log"
    backend = stage.backend(serve(lambda request: message.response(b"12345", status="404 Not Found")))
    collector = stage.collector()
    balancer = stage.balancer(backend, "--access-log", str(path), collector=collector)
    client = stage.client(balancer)
    port = client.sock.getsockname()[1]
    client.send(message.request("/x?q=1", method="DELETE"))
    assert client.receive_response().status == 404
    entry = logfmt(lines_of(path, 1)[0])
    span = collector.wait_for_tree().span
    assert (entry["trace_id"], entry["span_id"]) == (span.trace_id, span.span_id)
    assert entry["client"] == f"127.0.0.1:{port}"
    assert (entry["method"], entry["target"], entry["status"], entry["bytes"]) == ("DELETE", "/x?q=1", "404", "5")
    assert entry["backend"] == backend.address
    assert int(entry["duration_us"]) > 0
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", entry["time"])


def test_json_lines_have_the_same_keys(stage: Stage) -> None:
    path = stage.folder() / "access.log"
    balancer = stage.balancer(stage.backend(), "--access-log", str(path), "--log-format", "json")
    balancer.get('/"quoted"\\')
    entry = json.loads(lines_of(path, 1)[0])
    assert set(KEYS) <= set(entry)
    assert entry["target"] == '/"quoted"\\'
    assert (entry["status"], entry["bytes"]) == (200, len('/"quoted"\\'))


def test_each_request_has_one_line(stage: Stage) -> None:
    path = stage.folder() / "access.log"
    balancer = stage.balancer(stage.backend(), "--access-log", str(path), workers=2)
    for number in range(30):
        balancer.get(f"/{number}")
    targets = sorted(logfmt(line)["target"] for line in lines_of(path, 30))
    assert targets == sorted(f"/{number}" for number in range(30))


def test_refused_and_failed_requests_are_logged(stage: Stage) -> None:
    path = stage.folder() / "access.log"
    balancer = stage.balancer(["127.0.0.1:1"], "--access-log", str(path))
    assert balancer.get("/refused").status == 502
    assert balancer.exchange(b"GET / HTTP/1.1\r\nHost : h\r\n\r\n").status == 400
    assert [logfmt(line)["status"] for line in lines_of(path, 2)] == ["502", "400"]


def test_client_cannot_forge_a_line(stage: Stage) -> None:
    """Whatever is in a target, a line stays a line, and its values stay apart."""
    path = stage.folder() / "access.log"
    balancer = stage.balancer(stage.backend(), "--access-log", str(path))
    balancer.get('/"x"=\xe9&status=500')
    entry = logfmt(lines_of(path, 1)[0])
    assert entry["status"] == "200"


def test_log_is_appended_to(stage: Stage) -> None:
    path = stage.folder() / "access.log"
    for target in ("/first", "/second"):
        balancer = stage.balancer(stage.backend(), "--access-log", str(path))
        balancer.get(target)
        balancer.close()
    assert [logfmt(line)["target"] for line in lines_of(path, 2)] == ["/first", "/second"]


def test_dash_is_standard_output(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), "--access-log", "-")
    balancer.get("/shown")
    wait_until(lambda: "target=/shown" in balancer.output(), "the line on standard output")


def test_shutdown_loses_no_line(stage: Stage) -> None:
    path = stage.folder() / "access.log"
    balancer = stage.balancer(stage.backend(), "--access-log", str(path))
    client = stage.client(balancer)
    for number in range(200):
        client.send(message.request(f"/{number}"))
        client.receive_response()
    balancer.close()
    assert [logfmt(line)["target"] for line in lines_of(path, 200)] == [f"/{number}" for number in range(200)]


def test_bytes_are_those_really_sent(stage: Stage) -> None:
    """Of a truncated response only what the client got."""
    path = stage.folder() / "access.log"
    cut = message.response_head("Content-Length: 10") + b"half"
    balancer = stage.balancer(stage.backend(serve_once(cut)), "--access-log", str(path))
    with pytest.raises((PeerClosed, ConnectionResetError)):
        balancer.get("/cut")
    assert logfmt(lines_of(path, 1)[0])["bytes"] == "4"


def test_log_lines_of_the_balancer_itself_are_logfmt_or_json(stage: Stage) -> None:
    for form, parse in (("logfmt", logfmt), ("json", json.loads)):
        balancer = stage.balancer(stage.backend(), "--log-format", form, "--log-level", "debug")
        balancer.get("/")
        balancer.close()
        lines = balancer.log().splitlines()
        assert lines, "start and stop are worth a line"
        for line in lines:
            assert "level" in parse(line), line


def test_password_in_a_target_is_not_logged(stage: Stage) -> None:
    path = stage.folder() / "access.log"
    balancer = stage.balancer(stage.backend(), "--access-log", str(path))
    assert balancer.exchange(message.request("http://user:s3cret@site.test/x", host="site.test")).status == 400
    (line,) = lines_of(path, 1)
    assert "site.test/x" in line and "s3cret" not in line


def test_bytes_that_a_client_takes_no_credit_for_are_not_sent(stage: Stage) -> None:
    """They wait in its stream until it leaves."""
    path = stage.folder() / "access.log"
    collector = stage.collector()
    backend = stage.backend(serve(lambda request: message.response(b"x" * 1000)))
    balancer = stage.balancer(backend, "--access-log", str(path), collector=collector)
    client = stage.keep(Http2Client(balancer.port, initial_window_size=0))
    stream = client.request("/")
    client.wait_for(h2.events.ResponseReceived, stream)
    client.reset(stream)
    assert logfmt(lines_of(path, 1)[0])["bytes"] == "0"
    assert collector.wait_for_tree().span.attributes["http.response_content_length"] == 0
