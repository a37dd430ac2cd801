"""A bench run for people: an HTML page with plots that needs no network.

The page is one file: plotly.js and the figures' data are in it, and its own content security policy forbids it to load anything.
A figure is drawn when it is scrolled to or printed, so that a search with many probes opens at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plotly.offline import get_plotlyjs

from assets.reporting.bench_figures import MAX_GANTT_BARS, curve_figure, distributions_html, figure_html, gantt_html, over_time_html
from assets.reporting.bench_requests import Row, Run
from assets.reporting.bench_style import DEFINITIONS, POLICY, SCRIPT, STYLE
from assets.reporting.bench_values import (
    LATENCIES,
    UNKNOWN,
    as_count,
    as_interval,
    as_level,
    as_number,
    as_pair,
    as_text,
    or_zero,
    to_float,
    to_mapping,
)

MAX_GANTT_BARS_OF_ALL = 2000


MIN_GANTT_BARS = 50


_STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def render(document: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """The page: what was found, how the runs compare where there are several, and for each its numbers, plots and requests.

    Whatever is missing from a document is left out or shown as a dash. The same input gives the same page.
    """
    model, url = as_text(document.get("model")), as_text(document.get("url"))
    about = f"{url} · {as_text(document.get('api'))} API · {as_text(document.get('started_at'))}"
    parts = [f"<header><p class='kind'>Dyno bench report</p><h1>{model}</h1><p class='about'>{about}</p></header>"]
    parts.append(_found(to_mapping(document.get("find_max"))))
    if len(runs) > 1:
        parts.append(_comparison(runs))
    bars = max(MIN_GANTT_BARS, min(MAX_GANTT_BARS, MAX_GANTT_BARS_OF_ALL // max(len(runs), 1)))
    parts += [_section(number, run, to_mapping(document.get("flag_explanations")), bars) for number, run in enumerate(runs, 1)]
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<meta http-equiv='Content-Security-Policy' content=\"{POLICY}\">"
        f"<title>{model} – Dyno bench report</title><style>{STYLE}</style></head>\n<body>"
        "<noscript><p class='flags'>The plots need JavaScript; it is in this file.</p></noscript>"
        + "\n".join(part for part in parts if part)
        + f"<footer>Measured by Dyno. {DEFINITIONS}</footer>\n<script>{get_plotlyjs()}</script><script>{SCRIPT}</script></body></html>\n"
    )


def _found(search: Mapping[str, Any]) -> str:
    """What a search for the highest load found."""
    if not search:
        return ""
    objectives = as_text(", ".join(str(objective) for objective in search.get("objectives") or ()))
    if search.get("max") is None:
        return f"<p class='found'>No load of the search meets {objectives}.</p>"
    bound = "" if search.get("bounded") else " (the search ended there: the true maximum may be higher)"
    return (
        f"<p class='found'>{objectives} is met up to <b>{as_text(search.get('by'))} {as_level(search['max'])}</b>{bound}, "
        f"with a goodput of <b>{as_number(search.get('goodput_per_s'))} requests per second</b>.</p>"
    )


def _comparison(runs: Sequence[Run]) -> str:
    """All runs side by side: a table, and what throughput costs in latency."""
    columns = ("requests", "failed", "output tokens/s", "requests/s", "TTFT p50, ms", "TTFT p90, ms", "TPOT p90, ms", "e2e p90, ms")
    rows: list[Sequence[str]] = []
    for number, run in enumerate(runs, 1):
        metrics, requests = to_mapping(run.document.get("metrics")), to_mapping(run.document.get("requests"))
        latencies = (("ttft_ms", "p50"), ("ttft_ms", "p90"), ("tpot_ms", "p90"), ("e2e_ms", "p90"))
        rows.append(
            (
                f"<a href='#run-{number}'>{as_text(run.label)}</a>",
                *(as_count(requests.get(name)) for name in ("sent", "failed")),
                *(as_number(metrics.get(name)) for name in ("output_tokens_per_s", "requests_per_s")),
                *(as_number(to_mapping(metrics.get(name)).get(statistic)) for name, statistic in latencies),
            )
        )
    curve = curve_figure(runs)
    note = "90th percentiles; a point a run, labelled with its load. Error bars: 95 % intervals, where known."
    return (
        f"<section><h2>{len(runs)} runs</h2>{_table(('run', *columns), rows)}"
        f"{figure_html(curve, 'Latency against throughput', note) if curve is not None else ''}</section>"
    )


def _section(number: int, run: Run, explanations: Mapping[str, Any], max_bars: int) -> str:
    document = run.document
    rows = sorted(run.requests, key=lambda row: (to_float(row.get("start_ms")), row.get("index") or 0))
    counted = [row for row in rows if row.get("in_window") and row.get("failure") is None]
    parts = [
        f"<section id='run-{number}'><h2>{as_text(run.label)}</h2><p class='about'>{_load(document)}</p>",
        _tiles(document),
        _flags(document, explanations),
        f"<div class='tables'>{_latency_table(document)}{_facts_table(document)}</div>",
        _failures_table(to_mapping(document.get("failures")), rows),
        distributions_html(counted, len(rows)),
        over_time_html(rows, to_mapping(document.get("metrics"))),
        gantt_html(rows, max_bars),
    ]
    return "\n".join(part for part in parts if part) + "</section>"


def _load(document: Mapping[str, Any]) -> str:
    """The load, the workload and the window, in a line."""
    window, client = to_mapping(document.get("window")), to_mapping(document.get("client"))
    asked = {**to_mapping(document.get("load")), **to_mapping(document.get("workload")), "seed": client.get("seed")}
    said = [
        f"{as_text(name.replace('_per_s', '/s').replace('_', ' '))} {as_level(value) if isinstance(value, float) else as_text(value)}"
        for name, value in asked.items()
        if isinstance(value, str | int | float) and value
    ]
    if window:
        kind, requests = as_text(window.get("kind")), as_count(window.get("requests"))
        said.append(f"{kind} window of {as_number(window.get('duration_s'))} s, {requests} requests")
    return " · ".join(said)


def _tiles(document: Mapping[str, Any]) -> str:
    """The numbers that are looked for first."""
    metrics, requests, intervals = (to_mapping(document.get(name)) for name in ("metrics", "requests", "intervals"))
    tiles = [
        ("output tokens/s", as_number(metrics.get("output_tokens_per_s")), as_interval(intervals.get("output_tokens_per_s"))),
        ("requests/s", as_number(metrics.get("requests_per_s")), ""),
    ]
    for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
        p90 = as_number(to_mapping(metrics.get(name)).get("p90"))
        tiles.append((f"{LATENCIES[name]} p90, ms", p90, as_interval(intervals.get(f"{name.removesuffix('_ms')}_p90_ms"))))
    failed = requests.get("failed")
    note = f"<span class='failed'>{as_count(failed)} failed</span>" if failed else "none failed" if failed == 0 else ""
    tiles.append((f"completed of {as_count(requests.get('sent'))} requests", as_count(requests.get("completed")), note))
    cells = "".join(f"<div><span>{title}</span><b>{value}</b><small>{note}</small></div>" for title, value, note in tiles)
    return f"<div class='tiles'>{cells}</div>"


def _flags(document: Mapping[str, Any], explanations: Mapping[str, Any]) -> str:
    """What a reader should know before trusting the numbers."""
    known = {**explanations, **to_mapping(document.get("flag_explanations"))}
    items = [(as_text(flag), as_text(known.get(flag))) for flag in document.get("quality_flags") or ()]
    items += [("client", as_text(reason)) for reason in to_mapping(document.get("client")).get("limited") or ()]
    if not items:
        return ""
    notes = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in items)
    return f"<div class='flags'><h3>Before trusting these numbers</h3><dl>{notes}</dl></div>"


def _latency_table(document: Mapping[str, Any]) -> str:
    metrics, intervals = to_mapping(document.get("metrics")), to_mapping(document.get("intervals"))
    rows = []
    for name, title in LATENCIES.items():
        summary = to_mapping(metrics.get(name))
        bounds = as_interval(intervals.get(f"{name.removesuffix('_ms')}_p90_ms")) or UNKNOWN
        rows.append((title, *(as_number(summary.get(statistic)) for statistic in _STATISTICS), bounds))
    return _table(("latency, ms", *_STATISTICS, "p90, 95 % interval"), rows)


def _facts_table(document: Mapping[str, Any]) -> str:
    metrics, client = to_mapping(document.get("metrics")), to_mapping(document.get("client"))
    cpu_share = to_float(client.get("cpu_share_max"))
    facts = {
        "total tokens/s": as_number(metrics.get("total_tokens_per_s")),
        "input / output tokens a request, mean": as_pair(metrics, "input_tokens_mean", "output_tokens_mean"),
        "requests in flight, mean": as_number(metrics.get("concurrency_mean")),
        "goodput, requests/s": as_number(document.get("goodput_per_s")),
        "duration, s": as_number(metrics.get("duration_s")),
        "client's error in TTFT, p50 / p99, ms": as_pair(to_mapping(client.get("error_ms")), "p50", "p99"),
        "sent later than due, p50 / p99, ms": as_pair(to_mapping(client.get("schedule_lag_ms")), "p50", "p99"),
        "busiest load process, % of a core": as_number(100 * cpu_share),
    }
    known = [(name, value) for name, value in facts.items() if value != UNKNOWN]
    return _table(("throughput, and the client itself", ""), known) if known else ""


def _failures_table(failures: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Failures by kind, each with what the first such request said."""
    if not failures:
        return ""
    said: dict[str, str] = {}
    for row in rows:
        if row.get("failure") is not None:
            said.setdefault(str(row["failure"]), str(row.get("detail") or ""))
    ordered = sorted(failures.items(), key=lambda item: (-or_zero(item[1]), str(item[0])))
    cells = [
        (as_text(kind), as_count(count), f"<span class='detail'>{as_text(said.get(str(kind)) or None)}</span>") for kind, count in ordered
    ]
    return _table(("failures", "requests", "the first one says"), cells, "failures")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "numbers") -> str:
    """A table of cells that are HTML already."""
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join(f"<tr><th>{first}</th>" + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>" for first, *rest in rows)
    return f"<table class='{kind}'><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"
