"""Fixtures shared by every test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.certificates import Authority, Certificate
from harness.stage import Stage

_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def binary() -> Path:
    """The release binary: LB_BINARY, or where `make build` puts it."""
    path = Path(os.environ.get("LB_BINARY", _REPOSITORY / ".build/release/load_balancer"))
    if not path.exists():
        pytest.exit(f"{path} does not exist; run `make build`, or set LB_BINARY", returncode=2)
    return path


@pytest.fixture
def stage(binary: Path, tmp_path: Path) -> Iterator[Stage]:
    """Peers and balancers of one test."""
    with Stage(binary, tmp_path) as stage:
        yield stage


@pytest.fixture(scope="module")
def shared_stage(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Peers and balancers that the tests of one file share, where a fresh one adds nothing."""
    with Stage(binary, tmp_path_factory.mktemp("shared")) as stage:
        yield stage


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """What signs the certificates of one file's tests."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    """For most servers; a file that needs other names has a fixture of its own."""
    return authority.issue("DNS:a.test", "IP:127.0.0.1")
