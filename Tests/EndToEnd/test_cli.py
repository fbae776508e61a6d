"""The command line: what it prints, what it refuses, and that it says so in one clear line."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest

from harness import processes
from harness.balancer import clean_environment, free_port
from harness.stage import Stage

USAGE, RUN_TIME = 2, 1

FLAGS = """
    --port --address --backend --workers --otel-endpoint --otel-protocol --otel-exporter
    --service-name --log-level --log-format --access-log --check --version --help
    --max-request-head --max-request-fields --max-request-target --max-response-head --max-body
    --max-connections --max-requests-per-connection --h2-max-concurrent-streams --request-head-timeout --keep-alive-timeout
    --client-body-timeout --connect-timeout --response-head-timeout --upstream-stall-timeout
    --upstream-idle-timeout --tunnel-idle-timeout --half-close-timeout --client-stall-timeout
    --upstream-max-connections --upstream-max-idle --upstream-queue --upstream-queue-timeout
    --drain-timeout --span-buffer --otel-batch-size --otel-batch-delay --otel-timeout
    --pin-workers --no-pin-workers --max-attempts --config --print-config
    --upstream-h2-max-connections --upstream-ping-interval --upstream-max-connection-age --retry-buffer
    --upstream-h2-ping-timeout --upstream-h2-settings-timeout --upstream-h2-pause
    --ready-timeout --max-draining --worker-stall-timeout
    --watch-config --no-watch-config --pid-file --user --group
""".split()

GOOD_BACKEND = ("--backend", "127.0.0.1:9001")


def run(binary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the binary to its end in a session of its own, and checks that nothing of it is left."""
    process = subprocess.Popen(
        [binary, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=20)
    finally:
        process.kill()
    assert _session_members(process.pid) == []
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def _session_members(session: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if processes.session(pid) == session and processes.is_alive(pid)]


def assert_one_line(result: subprocess.CompletedProcess[str], value: str) -> None:
    """The error is one line that names `value`."""
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert value in lines[0]


def test_version_is_printed(binary: Path) -> None:
    result = run(binary, "--version")
    assert result.returncode == 0
    assert re.search(r"\d+\.\d+", result.stdout)


@pytest.mark.parametrize("flag", FLAGS)
def test_help_explains_flag(binary: Path, flag: str) -> None:
    result = run(binary, "--help")
    assert result.returncode == 0
    assert re.search(rf"{flag}\b", result.stdout)


@pytest.mark.parametrize("short", ["-p", "-b", "-w"])
def test_help_shows_short_form(binary: Path, short: str) -> None:
    assert re.search(rf"(^|\s){short}\b", run(binary, "--help").stdout)


def test_check_prints_what_would_run_and_starts_nothing(binary: Path) -> None:
    port = free_port()
    result = run(binary, "--check", "-p", str(port), "-b", "127.0.0.1:9001", "-b", "[::1]:9002", "-w", "3")
    assert result.returncode == 0, result.stderr
    for fact in (str(port), "127.0.0.1:9001", "[::1]:9002", "3"):
        assert fact in result.stdout


def test_check_refuses_what_a_start_would_refuse(binary: Path) -> None:
    result = run(binary, "--check", "--backend", "127.0.0.1")
    assert result.returncode == USAGE
    assert_one_line(result, "127.0.0.1")


@pytest.mark.parametrize(
    "backend",
    ["127.0.0.1:9001", "http://127.0.0.1:9001", "[::1]:9001", "http://[::1]:9001", "localhost:9001", "unix:/run/x"],
)
def test_backend_form_is_understood(binary: Path, backend: str) -> None:
    result = run(binary, "--check", "--backend", backend)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "backend",
    [
        "127.0.0.1",
        "127.0.0.1:",
        ":9001",
        "127.0.0.1:0",
        "127.0.0.1:70000",
        "127.0.0.1:x",
        "[::1:9001",
        "::1:9001",
        "[::1]",
        "ftp://127.0.0.1:9001",
        "http://127.0.0.1:9001/path",
        "unix:",
        "a b:80",
        "user@127.0.0.1:80",
        "unix:/" + "x" * 200,
    ],
)
def test_unusable_backend_is_refused(binary: Path, backend: str) -> None:
    result = run(binary, "--backend", backend)
    assert result.returncode == USAGE
    assert_one_line(result, backend)


@pytest.mark.parametrize(
    "flag, value",
    [
        ("--port", "70000"),
        ("--port", "abc"),
        ("--port", "-1"),
        ("--address", "300.1.2.3"),
        ("--address", "somewhere"),
        ("--workers", "0"),
        ("--workers", "many"),
        ("--workers", "-2"),
        ("--otel-endpoint", "localhost:4318"),
        ("--otel-endpoint", "ftp://localhost"),
        ("--otel-endpoint", "http://"),
        ("--otel-protocol", "grpc"),
        ("--otel-exporter", "zipkin"),
        ("--log-level", "loud"),
        ("--log-format", "xml"),
        ("--keep-alive-timeout", "soon"),
        ("--keep-alive-timeout", "-1"),
        ("--connect-timeout", "nan"),
        ("--connect-timeout", "inf"),
        ("--request-head-timeout", "1e400"),
        ("--max-request-head", "12q"),
        ("--max-request-head", "-5"),
        ("--max-request-head", "99999999999999999999g"),
        ("--max-request-fields", "0"),
        ("--max-body", "k"),
        ("--max-connections", "none"),
        ("--max-attempts", "0"),
        ("--span-buffer", "1"),
        ("--otel-batch-size", "0"),
    ],
)
def test_unusable_value_is_refused(binary: Path, flag: str, value: str) -> None:
    result = run(binary, *GOOD_BACKEND, f"{flag}={value}")
    assert result.returncode == USAGE
    assert_one_line(result, value)
    assert flag in result.stderr


@pytest.mark.parametrize(
    "arguments, named",
    [
        ([*GOOD_BACKEND, "--nonsense"], "--nonsense"),
        ([*GOOD_BACKEND, "stray"], "stray"),
        ([*GOOD_BACKEND, "--port"], "--port"),
        ([], "--backend"),
    ],
)
def test_malformed_command_line_is_refused(binary: Path, arguments: list[str], named: str) -> None:
    result = run(binary, *arguments)
    assert result.returncode == USAGE
    assert_one_line(result, named)


def test_unknown_backend_name_is_refused_at_start(binary: Path) -> None:
    result = run(binary, "--backend", "no-such-host.invalid:80")
    assert result.returncode in (USAGE, RUN_TIME)
    assert_one_line(result, "no-such-host.invalid")


def test_port_in_use_is_refused(binary: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = run(binary, *GOOD_BACKEND, "--address", "127.0.0.1", "--port", port)
    assert result.returncode == RUN_TIME
    assert_one_line(result, port)


def test_port_of_another_balancer_is_refused(binary: Path, stage: Stage) -> None:
    """SO_REUSEPORT alone would let a second balancer take half of the first one's clients."""
    first = stage.balancer(stage.backend())
    result = run(binary, *GOOD_BACKEND, "--address", "127.0.0.1", "--port", str(first.port))
    assert result.returncode == RUN_TIME
    assert_one_line(result, str(first.port))


def test_unavailable_address_is_refused(binary: Path) -> None:
    result = run(binary, *GOOD_BACKEND, "--address", "192.0.2.1", "--port", str(free_port()))
    assert result.returncode == RUN_TIME
    assert_one_line(result, "192.0.2.1")


def test_access_log_that_cannot_be_written_is_refused(binary: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "missing" / "access.log")
    result = run(binary, *GOOD_BACKEND, "--port", str(free_port()), "--access-log", path)
    assert result.returncode == RUN_TIME
    assert_one_line(result, path)


def test_listens_on_ipv4_and_ipv6_by_default(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), address=None)
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, balancer.port), 5).close()


def test_ps_shows_telling_names(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(), collector=stage.collector(), workers=2)
    assert processes.title(balancer.master).startswith("load_balancer: master")
    assert sorted(balancer.worker_pids()) == [0, 1]
    assert processes.title(balancer.exporter_pid()).startswith("load_balancer: exporter")
