"""Passive health: failing backends are left out, and let back in by one trial at a time."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest

from harness import message
from harness.backends import (
    BackendConnection,
    Script,
    close_at_once,
    hello,
    named,
    never_answer,
    refused_port,
    reset_at_once,
    serve,
)
from harness.balancer import Balancer
from harness.collector import Collector
from harness.stage import Stage
from harness.waiting import wait_until

FAILURES_TO_OUT = 3


def statuses(balancer: Balancer, count: int) -> list[int]:
    return [balancer.get("/").status for _ in range(count)]


def answers_and_closes(connection: BackendConnection) -> None:
    connection.receive_request()
    connection.send(message.response(b"ok", "Connection: close"))
    connection.close()


def test_third_failure_to_connect_takes_a_backend_out(stage: Stage) -> None:
    """Requests never notice, but the trace shows the number of healthy backends fall."""
    collector = stage.collector()
    balancer = stage.balancer([f"127.0.0.1:{refused_port()}", stage.backend()], collector=collector)
    assert statuses(balancer, 8) == [200] * 8
    found = collector.wait_for_trees(8)
    failed_attempts = [len(tree.all("backend_selection")) - 1 for tree in found]
    assert sum(failed_attempts) == FAILURES_TO_OUT
    last_selection = found[-1].one("backend_selection").attributes
    assert (last_selection["lb.backend_count"], last_selection["lb.healthy_count"]) == (2, 1)
    events = [event for tree in found for span in tree for event in span.events]
    assert [e.attributes["failures"] for e in events if e.name == "backend_marked_unhealthy"] == [FAILURES_TO_OUT]


@pytest.mark.parametrize("failure", [reset_at_once, close_at_once])
def test_resets_before_a_response_take_a_backend_out(stage: Stage, failure: Script) -> None:
    balancer = stage.balancer(stage.backend(failure))
    assert statuses(balancer, 4) == [502, 502, 502, 503]


def test_timeouts_take_a_backend_out(stage: Stage) -> None:
    balancer = stage.balancer(stage.backend(never_answer), "--response-head-timeout", "0.2")
    assert statuses(balancer, 4) == [504, 504, 504, 503]


def test_all_backends_out_is_503_with_retry_after(stage: Stage) -> None:
    balancer = stage.balancer([f"127.0.0.1:{refused_port()}"])
    assert statuses(balancer, 3) == [502, 502, 502]
    response = balancer.get("/")
    assert response.status == 503
    assert int(response.get("Retry-After") or "0") >= 1


def test_success_starts_the_count_anew(stage: Stage) -> None:
    scripts = [reset_at_once, reset_at_once, answers_and_closes] * 3
    balancer = stage.balancer(stage.backend(*scripts))
    assert statuses(balancer, 9) == [502, 502, 200] * 3


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "404 Not Found"])
def test_answers_with_an_error_status_are_not_failures(stage: Stage, status: str) -> None:
    backend = stage.backend(serve(lambda request: message.response(b"theirs", status=status)))
    balancer = stage.balancer(backend)
    for _ in range(6):
        response = balancer.get("/")
        assert (response.status, response.body) == (int(status[:3]), b"theirs")


def test_client_that_goes_away_is_no_failure_of_the_backend(stage: Stage) -> None:
    backend = stage.backend(*[never_answer] * 5, serve(hello))
    balancer = stage.balancer(backend)
    for number in range(5):
        client = balancer.connect()
        client.send(message.request("/"))
        backend.wait_for_requests(number + 1)
        client.reset()
        assert backend.connections[number].ended.wait(10)
    assert balancer.get("/").status == 200


def test_backend_that_recovered_comes_back(stage: Stage) -> None:
    port = refused_port()
    balancer = stage.balancer([f"127.0.0.1:{port}"])
    assert statuses(balancer, 4) == [502, 502, 502, 503]
    recovered = stage.backend(port=port)
    wait_until(lambda: balancer.get("/").status == 200, "a trial to succeed")
    assert statuses(balancer, 5) == [200] * 5
    assert len(recovered.requests) == 6


def test_only_one_trial_runs_at_a_time(stage: Stage) -> None:
    """While the trial hangs, all other requests still go to the healthy backend."""
    port = refused_port()
    healthy = stage.backend(serve(named("healthy")))
    balancer = stage.balancer([f"127.0.0.1:{port}", healthy], workers=1)
    assert statuses(balancer, 8) == [200] * 8
    may_answer = threading.Event()

    def hangs(connection: BackendConnection) -> None:
        connection.receive_request()
        assert may_answer.wait(20)
        connection.send(message.response(b"trial"))

    recovering = stage.backend(hangs, port=port)
    waiting = []

    def trial_has_begun() -> bool:
        client = stage.client(balancer)
        client.send(message.request("/"))
        if client.is_silent_for(0.2):
            waiting.append(client)
        return len(waiting) > 0

    wait_until(trial_has_begun, "a trial request")
    assert [balancer.get("/").text for _ in range(10)] == ["healthy"] * 10
    assert len(recovering.requests) == 1
    may_answer.set()
    assert waiting[0].receive_response().body == b"trial"


def test_failed_trial_keeps_the_backend_out(stage: Stage) -> None:
    """After the pause one request tries, and the next one is refused without a try."""
    balancer = stage.balancer([f"127.0.0.1:{refused_port()}"])
    assert statuses(balancer, 4) == [502, 502, 502, 503]
    wait_until(lambda: balancer.get("/").status == 502, "the trial")
    assert balancer.get("/").status == 503


def test_pauses_between_trials_grow(stage: Stage) -> None:
    """At least 1 s before the first trial, and 2 s before the second; how much more is not asked."""
    balancer = stage.balancer([f"127.0.0.1:{refused_port()}"])
    assert statuses(balancer, 2) == [502, 502]
    third, first_trial, second_trial = (failed_try(balancer) for _ in range(3))
    assert first_trial.answered_s - third.sent_s >= 1.0
    assert second_trial.answered_s - first_trial.sent_s >= 2.0


def test_client_that_comes_back_after_retry_after_is_tried(stage: Stage) -> None:
    """The time is that of the next trial, also when the pause has grown."""
    balancer = stage.balancer([f"127.0.0.1:{refused_port()}"])
    assert statuses(balancer, 3) == [502] * 3
    for _ in range(2):
        told = balancer.get("/")
        assert told.status == 503
        time.sleep(int(told.get("Retry-After") or "0"))
        assert balancer.get("/").status == 502


@dataclass(frozen=True)
class Try:
    sent_s: float
    answered_s: float


def failed_try(balancer: Balancer) -> Try:
    """Asks until a request is tried at the backend, and fails there."""

    def attempt() -> Try | None:
        sent_s = time.monotonic()
        status = balancer.get("/").status
        return Try(sent_s, time.monotonic()) if status == 502 else None

    return wait_until(attempt, "a trial")


def test_workers_judge_each_for_itself_but_all_judge(stage: Stage) -> None:
    collector: Collector = stage.collector()
    balancer = stage.balancer([f"127.0.0.1:{refused_port()}", stage.backend()], collector=collector, workers=2)
    assert statuses(balancer, 40) == [200] * 40
    found = collector.wait_for_trees(40)
    failed_attempts = sum(len(tree.all("backend_selection")) - 1 for tree in found)
    assert FAILURES_TO_OUT <= failed_attempts <= 2 * FAILURES_TO_OUT + 2
