"""The configuration file: a start from it, what --check and --print-config make of it, and its errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import message
from harness.backends import named, never_answer, serve
from harness.balancer import free_port
from harness.stage import Stage
from test_cli import GOOD_BACKEND, USAGE, assert_one_line, run

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the configuration and returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "lb.json"
        path.write_text(text)
        return str(path)

    return write


def test_a_balancer_starts_from_its_file(stage: Stage, write: Write) -> None:
    backends = [stage.backend(serve(named(name))) for name in ("one", "two")]
    collector = stage.collector()
    path = write(
        f"""
        {{
            // Everything but the port and the workers, which the harness says.
            "backends": ["{backends[0].address}", {{ "address": "{backends[1].address}" }},],
            "workers": 2,
            tracing: {{ endpoint: '{collector.endpoint}', batch_delay: 0.1 }},
        }}
        """
    )
    balancer = stage.balancer([], "--config", path)
    assert {balancer.get().text for _ in range(4)} == {"one", "two"}
    collector.wait_for_trees(4)


def test_the_port_may_stand_in_the_file(stage: Stage, write: Write) -> None:
    settings = {"listeners": [{"address": "127.0.0.1", "port": free_port()}], "backends": [stage.backend().address]}
    result = run(stage.binary, "--check", "--config", write(json.dumps(settings)))
    assert result.returncode == 0, result.stderr
    assert f"127.0.0.1:{settings['listeners'][0]['port']}" in result.stdout


def test_flags_win_over_the_file(stage: Stage, write: Write) -> None:
    """The harness gives an address, a port and one worker."""
    used, unused = stage.backend(serve(named("flag"))), stage.backend(serve(named("file")))
    path = write(json.dumps({"listeners": [{"port": 1}], "backends": [unused.address], "workers": 3}))
    balancer = stage.balancer(used, "--config", path)
    assert {balancer.get().text for _ in range(4)} == {"flag"}
    assert len(balancer.worker_pids()) == 1


def test_a_backend_may_have_a_limit_of_its_own(stage: Stage, write: Write) -> None:
    backend = stage.backend(never_answer)
    settings = {"backends": [{"address": backend.address, "connections_max": 1}], "upstream": {"queue": 0}}
    balancer = stage.balancer([], "--config", write(json.dumps(settings)))
    first = stage.client(balancer)
    first.send(message.request("/"))
    backend.wait_for_requests(1)
    assert balancer.get().status == 503


def test_check_accepts_a_good_file(binary: Path, write: Write) -> None:
    path = write('{ "listeners": [{ "port": 0 }], "backends": ["127.0.0.1:9001"], "workers": 3 }')
    result = run(binary, "--check", "--config", path)
    assert result.returncode == 0, result.stderr
    assert "127.0.0.1:9001" in result.stdout and "3" in result.stdout


@pytest.mark.parametrize("flags", [(), ("--check",), ("--print-config",)])
@pytest.mark.parametrize(
    "text, named",
    [
        ('{ "backends": ["127.0.0.1:9001"], "timeouts": { "connect": "abc" } }', "timeouts.connect: use seconds"),
        ('{ "workers": "many" ', "line 1, column 21"),
        ('{ "timeout": 5 }', 'did you mean "timeouts"?'),
        ('{ "backends": [] }', "backends"),
        ("[" * 100_000, "nested"),
        ("\0", "line 1, column 1"),
        (" " * (1 << 20) + "{}", "larger than 1m"),
    ],
)
def test_a_bad_file_is_refused(binary: Path, write: Write, text: str, named: str, flags: tuple[str, ...]) -> None:
    result = run(binary, *flags, "--config", write(text))
    assert result.returncode == USAGE
    assert_one_line(result, named)


@pytest.mark.parametrize("path", ["/nowhere/lb.json", "/", "/dev/zero"])
def test_what_is_no_file_is_refused(binary: Path, path: str) -> None:
    result = run(binary, "--config", path)
    assert result.returncode == USAGE
    assert_one_line(result, path)


def test_what_is_printed_can_be_used_again(binary: Path, write: Write) -> None:
    flags = ["-b", "unix:/x", "--connect-timeout", "0.25", "--max-body", "3m"]
    first = run(binary, *GOOD_BACKEND, *flags, "--print-config")
    assert first.returncode == 0, first.stderr
    printed = json.loads(first.stdout)
    assert printed["backends"] == ["127.0.0.1:9001", "unix:/x"]
    assert printed["timeouts"]["connect"] == 0.25
    assert printed["listeners"] == [{"port": 8080, "address": None}]
    again = run(binary, "--config", write(first.stdout), "--print-config")
    assert (again.returncode, again.stdout) == (0, first.stdout)
