"""`./dyno up` with a browser: the asset graph, a partition materialized from the UI through a killed worker, the docs pages."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from orchestration.local.processes import INSTANCE_VARIABLE, find_marked, instance_id
from orchestration.local.state import read_endpoints
from orchestration.sensors import HUB_INTERVAL_S
from tests.deadlines import eventually
from tests.e2e.conftest import MODEL, Demo, dyno
from tests.hub_standin import TINY, HubStandin, gguf_files

CHROMIUM = Path("/usr/bin/chromium")
BATCH = f"{MODEL}__f16__llama.cpp__chat_short__"
LEVELS = 5

pytestmark = [
    pytest.mark.engine,
    pytest.mark.services,
    pytest.mark.browser,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}"),
]


@dataclass(frozen=True)
class Running:
    """A running `./dyno up`: where its pages are."""

    demo: Demo
    hub: HubStandin
    dagster: str
    api: str
    docs: str


@pytest.fixture(scope="module")
def running(demo: Demo) -> Iterator[Running]:
    """Everything, started in the background on the demo's state and stopped at the end; nothing may be left."""
    with HubStandin() as hub:
        settings = {"DYNO_PROTOCOL": "demo", "DYNO_HUB_ENDPOINT": hub.endpoint, "DYNO_FOLLOWED_AUTHORS": "acme"}
        ended = dyno("up", "--detach", state_dir=demo.state_dir, **settings)
        assert ended.returncode == 0, ended.stderr
        try:
            services = json.loads(dyno("status", "--json", state_dir=demo.state_dir).stdout)["services"]
            urls = {service["name"]: service["url"] for service in services}
            yield Running(demo, hub, urls["dagster-webserver"].rstrip("/"), urls["api"].removesuffix("/docs"), urls["dbt-docs"])
        finally:
            assert dyno("down", state_dir=demo.state_dir).returncode == 0
    eventually(lambda: not find_marked(INSTANCE_VARIABLE, instance_id(demo.state_dir)), "every process has ended")


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1680, "height": 1050})
        opened.set_default_timeout(60_000)
        yield opened
        browser.close()


def test_the_asset_graph_has_every_stage(running: Running, page: Page) -> None:
    """Models, matrix, one benchmark asset per hardware config, the catalog, and dbt's models."""
    page.goto(f"{running.dagster}/asset-groups")
    for group in ("models", "matrix", "benchmark", "catalog", "rankings"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible(timeout=60_000)
    page.goto(f"{running.dagster}/locations/dyno/asset-groups/benchmark/list")
    for name in ("benchmark_cpu", "benchmark_l4_x1", "benchmark_h100_80gb_x8", "benchmark_h200_141gb_x4"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=60_000)


def test_a_partition_from_the_ui_survives_a_killed_worker(running: Running, page: Page) -> None:
    """kill -9 of the worker in mid-batch: the run's retry keeps what is finished and measures the rest; nothing is there twice."""
    state_dir = running.demo.state_dir
    page.goto(f"{running.dagster}/assets/benchmark_cpu?view=partitions")
    page.get_by_placeholder("Filter by name").fill(BATCH)
    page.get_by_text("f16", exact=False).filter(has_text="short").first.click()
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_role("button", name="Launch 1 run").click()

    checkpoints = eventually(lambda: list((state_dir / "checkpoints").glob(f"{BATCH}*/demo-r0")), "the worker has started", 120)[0]
    eventually(lambda: finished(checkpoints), "a load point is finished", 120)
    worker_of(checkpoints).send_signal(signal.SIGKILL)
    kept = finished(checkpoints)
    assert 1 <= len(kept) < LEVELS

    eventually(lambda: len(finished(checkpoints)) == LEVELS, "the retry has measured the rest", 240)
    after = finished(checkpoints)
    assert {config_id: after[config_id] for config_id in kept} == kept
    expect(page.get_by_text("Materialized (3)")).to_be_visible(timeout=120_000)
    measured = measured_in_catalog(state_dir, checkpoints.parent.name)
    assert sorted(measured) == sorted(after.values())


def finished(checkpoints: Path) -> dict[str, str]:
    """Measurement id by config id of the finished load points."""
    documents = [json.loads(path.read_text())["measurement"] for path in checkpoints.glob("*.json") if path.name != "job.json"]
    return {document["config_id"]: document["measurement_id"] for document in documents}


def worker_of(checkpoints: Path) -> psutil.Process:
    """The worker that measures into this folder."""
    job = str(checkpoints / "job.json")
    return next(
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and (line := command_line(process))[1:4] == ["-m", "assets.benchmark", "--job"] and line[4] == job
    )


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def measured_in_catalog(state_dir: Path, partition_key: str) -> list[str]:
    """Ids of the batch's measurements in the running database."""
    from assets.catalog.repository import Catalog  # noqa: PLC0415

    endpoints = read_endpoints(state_dir)
    assert endpoints is not None
    catalog = Catalog(endpoints.database_url)
    try:
        return [str(point.measurement_id) for point in catalog.measurements_of(partition_keys=[partition_key])]
    finally:
        catalog.close()


def test_a_model_that_appears_on_the_hub_is_registered_measured_and_ranked(running: Running, page: Page) -> None:
    """Published while everything runs: one tick later it has its partitions; then it is measured and the API ranks it, by itself."""
    running.hub.publish("acme/tiny-GGUF", gguf_files(TINY, ["q8_0"]))
    model_id = "acme--tiny-gguf"
    page.goto(f"{running.dagster}/assets/model?view=partitions")
    expect(page.get_by_text(model_id).first).to_be_visible(timeout=(HUB_INTERVAL_S + 60) * 1000)

    def ranked() -> bool:
        answer = httpx2.get(f"{running.api}/api/v1/rankings", params={"use_case": "chatbot"}, timeout=30).json()
        return any(item["model_id"] == model_id for item in answer["items"])

    eventually(ranked, "the API ranks the new model", 300)


def test_the_docs_pages_open_without_the_internet(running: Running, page: Page) -> None:
    """The API's page and the dbt site are whole: no request leaves the machine, no script fails."""
    strangers: list[str] = []
    broken: list[str] = []
    page.on("request", lambda request: strangers.append(request.url) if is_elsewhere(request.url) else None)
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(f"{running.api}/docs")
    expect(page.get_by_text("/api/v1/recommend").first).to_be_visible()
    page.goto(f"{running.docs}#!/model/model.dyno.model_rankings")
    expect(page.get_by_role("heading", name="model_rankings").first).to_be_visible()
    assert strangers == []
    assert broken == []


def is_elsewhere(url: str) -> bool:
    """Whether a page asks another machine."""
    return url.startswith(("http:", "https:")) and urlsplit(url).hostname != "127.0.0.1"
