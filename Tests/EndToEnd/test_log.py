"""The log on standard error: nobody waits for whoever reads it."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from harness import message
from harness.backends import hello, reset_at_once, serve
from harness.stage import Stage


@pytest.fixture
def full_pipe(tmp_path: Path) -> tuple[Path, int]:
    """A FIFO that holds one page, and a descriptor to fill and to read it."""
    path = tmp_path / "stderr"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    return path, end


def fill(end: int) -> None:
    try:
        while True:
            os.write(end, b"#")
    except BlockingIOError:
        pass


def test_full_log_pipe_holds_nobody_up(stage: Stage, full_pipe: tuple[Path, int]) -> None:
    """Workers warn of the backend that fails, the master tells of deaths and of the end."""
    path, end = full_pipe
    backend = stage.backend(*[reset_at_once] * 3, serve(hello))
    wrapper = ["sh", "-c", f'exec "$0" "$@" 2>{path}']
    balancer = stage.balancer(backend, "--log-level", "debug", wrapper=wrapper, expects_deaths=True)
    fill(end)
    for number in range(3):
        assert balancer.get(f"/{number}").status == 502
    balancer.wait_for_new_worker(balancer.kill_worker())
    assert balancer.get("/after").status == 200
    balancer.signal(signal.SIGTERM)
    assert balancer.wait_for_exit() == 0
    os.close(end)


def test_lines_that_were_lost_are_counted(stage: Stage, full_pipe: tuple[Path, int]) -> None:
    path, end = full_pipe
    wrapper = ["sh", "-c", f'exec "$0" "$@" 2>{path}']
    balancer = stage.balancer(stage.backend(), "--log-level", "debug", wrapper=wrapper, expects_deaths=True)
    os.read(end, 65536)
    fill(end)
    balancer.wait_for_new_worker(balancer.kill_worker())
    os.read(end, 65536)
    balancer.signal(signal.SIGTERM)
    assert balancer.wait_for_exit() == 0
    lines = os.read(end, 65536).decode().splitlines()
    assert any("lines_dropped=" in line and "role=master" in line for line in lines), lines
    assert all(line.startswith("time=") for line in lines), "no line is broken"
    os.close(end)


def test_log_of_a_service_that_is_read_is_whole(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend())
    client = stage.client(balancer)
    client.send(message.request("/"))
    assert client.receive_response().status == 200
    balancer.signal(signal.SIGTERM)
    client.close()
    assert balancer.wait_for_exit() == 0
    assert "lines_dropped" not in balancer.log() and "msg=ended" in balancer.log()
