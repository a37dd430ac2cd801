"""A fake cluster for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.kubernetes_api.support import SPEC
from tests.kubernetes_api.cluster import FakeCluster, running_cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """One node, and images of which only `busybox` is quick to pull."""
    with running_cluster(SPEC, tmp_path) as found:
        yield found
