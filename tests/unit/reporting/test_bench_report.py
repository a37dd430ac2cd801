"""The report shows what was measured, safely, also when little was; the Parquet file holds every request."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs

from assets.reporting import bench_figures
from assets.reporting.bench_figures import MAX_GANTT_BARS
from assets.reporting.bench_report import render
from assets.reporting.bench_requests import SCHEMA, Run, write_requests

PLOTLY_JS = get_plotlyjs()
MAX_PAGE_BYTES = 6_000_000
EVIL = "</script><img src=x onerror=alert(1)>"
SUMMARY = {"mean": 60.24, "p50": 60.5, "p90": 84.1, "p95": 87.0, "p99": 89.2}
DOCUMENT: dict[str, Any] = {
    "url": "http://h:1",
    "model": "m",
    "api": "completions",
    "started_at": "2026-11-21T07:00:00+00:00",
    "load": {"mode": "closed", "concurrency": 32, "rate_per_s": None, "profile": None},
    "requests": {"sent": 3, "completed": 2, "failed": 1},
    "failures": {"timeout": 1},
    "metrics": {
        **{f"{name}_ms": SUMMARY for name in ("ttft", "tpot", "itl", "e2e")},
        "requests_per_s": 46.2,
        "output_tokens_per_s": 1501.45,
        "total_tokens_per_s": 23_456.7,
        "input_tokens_mean": 512.0,
        "output_tokens_mean": 32.0,
        "concurrency_mean": 31.99,
        "duration_s": 12.29,
    },
    "window": {"kind": "steady", "duration_s": 12.29, "requests": 2},
    "intervals": {"ttft_p90_ms": [82.42, 85.54]},
    "quality_flags": ["few_requests"],
    "flag_explanations": {"few_requests": "fewer than 100 requests completed"},
    "client": {
        "error_ms": {"p50": 0.003, "p99": 0.033},
        "schedule_lag_ms": {"p50": 0.07, "p99": 0.2},
        "cpu_share_max": 0.05,
        "limited": [],
    },
}


def row(index: int, failure: str | None = None, **changes: object) -> dict[str, Any]:
    known = failure is None
    return {
        "index": index, "turn": 0, "due_ms": 10.0 * index, "start_ms": 10.0 * index + 0.1, "clock_ms": 10.0 * index + 0.1,
        "end_ms": 10.0 * index + 100.1, "lag_ms": 0.1, "first_token_ms": 10.0 * index + 50.1 if known else None, "connect_ms": None,
        "receive_lag_ms": 0.02, "ttft_ms": 50.0 if known else None, "tpot_ms": 25.0 if known else None, "e2e_ms": 100.0 if known else None,
        "token_gaps_ms": (20.0, 30.0) if known else (), "chunks": 3 if known else 0, "input_tokens": 512, "cached_tokens": None,
        "output_tokens": 6 if known else None, "tokenizer_tokens": None, "usage_reported": known,
        "finish_reason": "length" if known else None,
        "failure": failure, "detail": "" if known else "no complete response within 1 s", "in_window": known,
    } | changes  # fmt: skip


class _Page(HTMLParser):
    """A page taken apart: its text, the figures' data, its tags, and whatever it would load or point at."""

    def __init__(self, html: str, *, whole: bool = False) -> None:
        super().__init__()
        self.text, self.figures, self.tags, self.links = "", list[dict[str, Any]](), list[str](), list[str]()
        self.attributes = list[str]()
        self._within = ""
        self.feed(html if whole else html.replace(PLOTLY_JS, ""))  # which takes a second
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.links += [value for name, value in attrs if name in {"src", "href"} and value]
        if tag in {"script", "style"}:
            self._within = "figure" if ("type", "application/json") in attrs else tag

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "style"}:
            self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "figure":
            self.figures.append(json.loads(data))
        elif not self._within:
            self.text += f"{data} "

    def traces(self, axis_title: str) -> list[dict[str, Any]]:
        """The traces of the first figure that has an axis of this title."""
        for figure in self.figures:
            titles = [axis.get("title", {}).get("text", "") for name, axis in figure["layout"].items() if "axis" in name]
            if any(title.startswith(axis_title) for title in titles):
                traces: list[dict[str, Any]] = figure["data"]
                return traces
        return []


def test_the_numbers_are_there_with_their_units() -> None:
    page = _Page(render(DOCUMENT, [Run("concurrency 32", DOCUMENT, [row(0), row(1), row(2, "timeout")])]))
    for shown in (
        "concurrency 32", "latency, ms", "60.24", "82.42 to 85.54", "1,501.5", "46.20", "23,457", "512.0 / 32.00", "0.003 / 0.033",
        "0.070 / 0.200", "completed of 3 requests", "1 failed", "timeout", "no complete response within 1 s", "steady window of 12.29 s",
        "few_requests", "fewer than 100 requests completed",
    ):  # fmt: skip
        assert shown in page.text
    axes = [axis for figure in page.figures for name, axis in figure["layout"].items() if "axis" in name]
    assert {axis["title"]["text"] for axis in axes if "text" in axis.get("title", {})} == {
        "TTFT, ms (max. 50.00)", "TPOT, ms (max. 25.00)", "ITL, ms (max. 30.00)", "e2e, ms (max. 100.0)", "requests at or below, %",
        "gaps at or below, %", "output tokens/s", "requests in flight", "seconds since the load point's start",
        "request, in the order of their starts",
    }  # fmt: skip


def test_a_page_of_thirty_probes_is_under_6_mb_and_loads_nothing() -> None:
    rows = [row(index, token_gaps_ms=tuple(np.linspace(10, 30, 100))) for index in range(3000)]
    html = render(DOCUMENT, [Run(f"probe {number}", DOCUMENT, rows) for number in range(30)])
    assert len(html.encode()) < MAX_PAGE_BYTES
    assert html.count(PLOTLY_JS) == 1
    page = _Page(html, whole=True)
    assert {link[0] for link in page.links} == {"#"}
    assert not {"link", "iframe", "object", "embed", "img", "base"} & set(page.tags)
    assert "default-src 'none'" in html


def test_what_comes_from_outside_cannot_become_markup() -> None:
    document = {
        **DOCUMENT, "model": EVIL, "url": EVIL, "api": EVIL, "started_at": EVIL, "load": {EVIL: EVIL}, "failures": {EVIL: 1},
        "quality_flags": [EVIL], "flag_explanations": {EVIL: EVIL}, "client": {"limited": [EVIL]}, "window": {"kind": EVIL},
        "find_max": {"objectives": [EVIL], "by": EVIL, "max": 3},
    }  # fmt: skip
    html = render(document, [Run(EVIL, document, [row(0), row(1, EVIL, detail=EVIL)]), Run("b", document, [])])
    page = _Page(html)
    assert "img" not in page.tags
    assert "onerror" not in page.attributes
    assert page.text.count(EVIL) >= 10
    assert "<img src=x" not in html.replace(PLOTLY_JS, "")
    assert "<img" not in json.dumps(page.figures)  # a plot would take it for markup of its own
    assert "&lt;img" in json.dumps(page.figures)


def test_distributions_are_of_the_requests_that_count_and_mark_their_percentiles() -> None:
    counted = [row(index, ttft_ms=float(index + 1)) for index in range(100)]
    others = [row(100, ttft_ms=9e9, in_window=False), row(101, "timeout", ttft_ms=9e9)]
    page = _Page(render(DOCUMENT, [Run("r", DOCUMENT, [*counted, *others])]))
    curve, marks = page.traces("TTFT")[:2]
    assert (curve["x"][0], curve["y"][0], curve["x"][-1], curve["y"][-1]) == (1.0, 1.0, 100.0, 100.0)
    assert marks["x"] == [50.5, 90.1, 99.01]
    assert marks["text"] == ["50.50", "90.10", "99.01"]
    assert "100 requests that count, of 102" in page.text


def test_no_token_and_no_request_is_lost_over_time() -> None:
    rows = [row(index) for index in range(50)] + [row(50, "timeout")]
    rate, in_flight = _Page(render(DOCUMENT, [Run("r", DOCUMENT, rows)])).traces("output tokens/s")
    assert np.dot(np.diff(rate["x"]), rate["y"][:-1]) == pytest.approx(50 * 6, rel=1e-3)
    assert max(in_flight["y"]) == 10  # a start every 10 ms, each of 100 ms
    assert in_flight["y"][-1] == 0
    area_s = np.dot(np.diff(in_flight["x"]), in_flight["y"][:-1])
    assert area_s == pytest.approx(51 * 0.1, rel=1e-3)


def test_bars_of_requests_are_their_phases() -> None:
    late = row(1, due_ms=0.0, start_ms=5.0, first_token_ms=45.0, end_ms=105.0)
    bars = {bar["name"]: bar for bar in _Page(render({}, [Run("r", {}, [row(9, "connect", start_ms=50.0), late])])).traces("request,")}
    spans = {name: [(base, base + length) for base, length in zip(bar["base"], bar["x"], strict=True)] for name, bar in bars.items()}
    assert spans["sent later than due"] == [(0.0, 0.005)]
    assert spans["waiting for the first token"] == [(0.005, 0.045)]
    assert spans["receiving tokens"] == [(0.045, pytest.approx(0.105))]
    assert spans["failed"] == [(0.05, pytest.approx(0.1901))]
    assert "connect" in bars["failed"]["hovertext"][0]


@pytest.mark.parametrize(("requests", "bars"), [(MAX_GANTT_BARS, MAX_GANTT_BARS), (MAX_GANTT_BARS + 1, MAX_GANTT_BARS), (7, 7)])
def test_a_long_gantt_is_cut_evenly_and_says_so(requests: int, bars: int) -> None:
    page = _Page(render(DOCUMENT, [Run("r", DOCUMENT, [row(index) for index in range(requests)])]))
    waiting = next(trace for trace in page.traces("request,") if trace["name"] == "waiting for the first token")
    assert len(waiting["y"]) == bars
    assert waiting["hovertext"][0].startswith("request 0:")
    assert waiting["hovertext"][-1].startswith(f"request {requests - 1}:")
    assert (f"{bars} of {requests} requests, evenly picked" in page.text) == (bars < requests)


def test_several_runs_are_compared_along_their_load() -> None:
    def document(concurrency: int) -> dict[str, Any]:
        metrics = {
            "output_tokens_per_s": 100.0 * concurrency,
            "requests_per_s": 2.0 * concurrency,
            "ttft_ms": {"p90": 50.0 + concurrency},
            "tpot_ms": {"p90": 20.0},
        }
        return {
            "load": {"concurrency": concurrency},
            "metrics": metrics,
            "intervals": {"ttft_p90_ms": [45.0 + concurrency, 60.0 + concurrency]},
        }

    runs = [Run(f"concurrency {level}", document(level), []) for level in (1, 8, 4)]
    page = _Page(render(DOCUMENT, [*runs, Run("unmeasured", {"load": {"concurrency": 16}}, [])]))
    ttft_by_tokens, ttft_by_requests, tpot_by_tokens, _ = page.traces("TTFT p90")
    assert ttft_by_tokens["x"] == [100.0, 400.0, 800.0]
    assert ttft_by_tokens["y"] == [51.0, 54.0, 58.0]
    assert ttft_by_tokens["text"] == ["1", "4", "8"]
    assert (ttft_by_tokens["error_y"]["arrayminus"], ttft_by_tokens["error_y"]["array"]) == ([5.0] * 3, [10.0] * 3)
    assert ttft_by_requests["x"] == [2.0, 8.0, 16.0]
    assert tpot_by_tokens["y"] == [20.0] * 3
    assert [link for link in page.links if link == "#run-2"]


def test_one_run_is_not_compared_with_itself() -> None:
    assert _Page(render(DOCUMENT, [Run("r", DOCUMENT, [row(0)])])).traces("TTFT p90") == []


def test_a_search_says_what_it_found() -> None:
    search = {"by": "concurrency", "objectives": ["ttft_p90<=300"], "max": 12, "goodput_per_s": 40.5, "bounded": True}
    runs = [Run("1: concurrency 1", DOCUMENT, [row(0)]), Run("2: concurrency 12", DOCUMENT, [row(0)])]
    text = _Page(render({**DOCUMENT, "find_max": search}, runs)).text
    assert "ttft_p90<=300 is met up to" in text
    assert "concurrency 12" in text
    assert "may be higher" not in text
    assert "may be higher" in _Page(render({"find_max": {**search, "bounded": False}}, [])).text
    assert "No load of the search meets" in _Page(render({"find_max": {**search, "max": None}}, [])).text


def test_no_completed_request_leaves_failures_and_their_bars() -> None:
    document = {
        **DOCUMENT,
        "requests": {"sent": 2, "completed": 0, "failed": 2},
        "failures": {"connect": 2},
        "metrics": {},
        "intervals": {},
    }
    page = _Page(render(document, [Run("r", document, [row(0, "connect"), row(1, "connect")])]))
    assert "2 failed" in page.text
    assert page.traces("TTFT") == []
    assert [trace["name"] for trace in page.traces("request,")] == ["sent later than due", "failed"]
    assert page.traces("output tokens/s")[0]["y"] == [0.0] * len(page.traces("output tokens/s")[0]["y"])


def _pruned(value: Any) -> st.SearchStrategy[Any]:
    """The value with any of its parts null or missing."""
    if not isinstance(value, dict):
        return st.one_of(st.just(value), st.none())
    parts = st.fixed_dictionaries({}, optional={key: _pruned(part) for key, part in value.items()})
    return st.one_of(st.none(), parts)


@settings(max_examples=60, deadline=None)
@given(document=_pruned(DOCUMENT), changes=_pruned(dict.fromkeys(row(0))), count=st.integers(1, 2))
def test_whatever_is_missing_there_is_a_page(document: dict[str, Any] | None, changes: dict[str, Any] | None, count: int) -> None:
    rows = [row(0) | (changes or {}), {"index": 1}, {}]
    page = _Page(render(document or {}, [Run("little is known", document or {}, rows)] * count))
    assert "little is known" in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.split()


def test_nothing_at_all_still_has_a_page() -> None:
    assert "Dyno bench report" in _Page(render({}, [])).text


def test_a_page_is_the_same_for_the_same_input() -> None:
    runs = [Run("r", DOCUMENT, [row(0), row(1, "timeout")])]
    assert render(DOCUMENT, runs) == render(DOCUMENT, runs)


def test_a_run_s_requests_make_the_file_they_came_from(tmp_path: Path) -> None:
    rows = [row(0), row(1, "timeout"), row(2, tokenizer_tokens=7, connect_ms=1.5, turn=3)]
    write_requests(tmp_path / "requests.parquet", rows)
    table = pq.read_table(tmp_path / "requests.parquet")
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == [{"run": 1, **r, "token_gaps_ms": list(r["token_gaps_ms"])} for r in rows]


def test_columns_have_the_types_that_readers_rely_on(tmp_path: Path) -> None:
    write_requests(tmp_path / "requests.parquet", [])
    schema = pq.read_schema(tmp_path / "requests.parquet")
    types = {
        "index": pa.int64(), "turn": pa.int32(), "due_ms": pa.float64(), "token_gaps_ms": pa.list_(pa.float64()), "chunks": pa.int32(),
        "output_tokens": pa.int64(), "in_window": pa.bool_(),
    }  # fmt: skip
    assert {name: schema.field(name).type for name in types} == types
    nullable = {field.name for field in schema if field.nullable}
    assert nullable == {
        "clock_ms", "first_token_ms", "connect_ms", "receive_lag_ms", "ttft_ms", "tpot_ms", "e2e_ms", "input_tokens", "cached_tokens",
        "output_tokens", "tokenizer_tokens", "finish_reason", "failure",
    }  # fmt: skip


def test_the_requests_of_several_runs_are_told_apart(tmp_path: Path) -> None:
    rows = [row(0), row(1, "timeout")]
    write_requests(tmp_path / "requests.parquet", [Run("a", {}, rows), Run("b", {}, rows[:1])])
    read_back = pq.read_table(tmp_path / "requests.parquet").to_pylist()
    assert [(r["run"], r["index"], r["failure"]) for r in read_back] == [(1, 0, None), (1, 1, "timeout"), (2, 0, None)]


def test_a_row_without_what_is_always_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pa.ArrowException):
        write_requests(tmp_path / "requests.parquet", [row(0, start_ms=None)])


@given(st.floats(1e-3, 1e7))
def test_windows_over_time_are_round_and_few(span_s: float) -> None:
    width_s = bench_figures._window_s(span_s)
    assert span_s / width_s <= bench_figures.THROUGHPUT_WINDOWS * (1 + 1e-6)
    assert f"{width_s:.0e}"[0] in "125"
