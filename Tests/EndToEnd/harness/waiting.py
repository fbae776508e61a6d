"""Waiting for something that another process does.

A test never sleeps for a fixed time and hopes. It either blocks on an event of its own, or polls
here for a state of the outside world that offers no event (a line in a file, an entry in /proc).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

PATIENCE_S = 10.0
"""How long anything that should happen promptly may take on a loaded machine."""

_POLL_INTERVAL_S = 0.01


def wait_until(condition: Callable[[], Result | None], what: str, timeout_s: float = PATIENCE_S) -> Result:
    """Polls `condition` until it returns something true, and returns that.

    Raises AssertionError, naming `what` was waited for and the last value seen, after `timeout_s`.
    """
    value = poll(condition, timeout_s)
    assert value, f"waited {timeout_s} s for {what}; last seen: {value!r}"
    return value


def poll(condition: Callable[[], Result], timeout_s: float) -> Result:
    """Polls `condition` until it returns something true or time is up, and returns the last value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(_POLL_INTERVAL_S)
    return value
