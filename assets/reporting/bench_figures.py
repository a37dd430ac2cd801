"""The figures of a bench report: distributions, throughput over time, requests one by one, rate against latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from assets.benchmark.load.statistics import PERCENTILE_METHOD
from assets.reporting.bench_requests import Row, Run
from assets.reporting.bench_values import (
    LATENCIES,
    Floats,
    as_count,
    as_level,
    as_number,
    as_text,
    column_of,
    gaps_of,
    known_values,
    plain_list,
    span_seconds,
    timed_rows,
    to_float,
    to_mapping,
)

Phase = Literal["sent later than due", "waiting for the first token", "receiving tokens", "failed"]


# Bounds of what is drawn: plotly.js is 4.9 MB, and the page is to stay under 6 MB, also with the thirty probes of a long search.
MAX_GANTT_BARS = 500  # of a run


MAX_CDF_POINTS = 150


MAX_IN_FLIGHT_POINTS = 400


MAX_LABELLED_RUNS = 12


LOG_SCALE_FROM_RATIO = 20.0


THROUGHPUT_WINDOWS = 100  # at most so many


_MARKED_PERCENTILES = (50, 90, 99)


_BLUE, _AMBER, _RED, _GREY, _INK, _RULE = "#3468a8", "#e3a63f", "#c23b34", "#bcc4cd", "#1f2933", "#e4e8ec"


_COLOURS: Mapping[Phase, str] = {
    "sent later than due": _GREY,
    "waiting for the first token": _AMBER,
    "receiving tokens": _BLUE,
    "failed": _RED,
}


_AXIS = {"gridcolor": _RULE, "linecolor": _GREY, "zeroline": False, "ticks": "outside", "tickcolor": _GREY, "automargin": True}


def distributions_html(counted: Sequence[Row], total: int) -> str:
    """The share of requests (of gaps for ITL) that took at most so long."""
    values = {name: np.sort(known_values(column_of(counted, name))) for name in ("ttft_ms", "tpot_ms", "e2e_ms")}
    values["itl_ms"] = np.sort(np.concatenate([gaps_of(row) for row in counted])) if counted else np.empty(0)
    if not any(data.size for data in values.values()):
        return ""
    figure = make_subplots(rows=1, cols=len(LATENCIES), horizontal_spacing=0.055)
    for column, (name, title) in enumerate(LATENCIES.items(), 1):
        axis = f"{title}, ms"
        if values[name].size:
            axis += f" (max. {as_number(float(values[name][-1]))})"
            _add_cdf(figure, column, values[name])
        figure.update_xaxes(title_text=axis, row=1, col=column)
        share = "gaps" if name == "itl_ms" else "requests"
        figure.update_yaxes(title_text=f"{share} at or below, %", range=[0, 103], dtick=25, row=1, col=column)
    figure.update_layout(height=290, showlegend=False)
    gaps = values["itl_ms"].size
    note = f"of the {len(counted):,} requests that count, of {total:,}; {gaps:,} gaps between tokens. Dots: p50, p90, p99."
    return figure_html(figure, "Latency distributions", note)


def _add_cdf(figure: go.Figure, column: int, data: Floats) -> None:
    """A curve through at most MAX_CDF_POINTS of the sorted data, and its percentiles. The axis ends past p99: outliers are in its title."""
    places = np.unique(np.linspace(0, data.size - 1, min(data.size, MAX_CDF_POINTS)).round().astype(int))
    shares = 100 * (places + 1) / data.size
    line, hover = {"color": _BLUE, "width": 2, "shape": "hv"}, "%{y:.1f} %: %{x:.4g} ms<extra></extra>"
    figure.add_trace(
        go.Scatter(x=plain_list(data[places]), y=plain_list(shares, 2), mode="lines", line=line, hovertemplate=hover),
        row=1,
        col=column,
    )
    marks = np.percentile(data, _MARKED_PERCENTILES, method=PERCENTILE_METHOD)
    figure.add_trace(
        go.Scatter(
            x=plain_list(marks),
            y=_MARKED_PERCENTILES,
            mode="markers+text",
            text=[as_number(float(mark)) for mark in marks],
            textposition="bottom right",
            textfont={"size": 11, "color": _INK},
            marker={"color": _AMBER, "size": 8, "line": {"color": "white", "width": 1}},
            cliponaxis=False,
            hovertemplate="p%{y}: %{x:.4g} ms<extra></extra>",
        ),
        row=1,
        col=column,
    )
    low, high = float(data[0]), float(marks[-1])
    room = max(high - low, 0.02 * high, 1e-3)
    figure.update_xaxes(range=[max(0.0, low - 0.05 * room), high + 0.35 * room], nticks=6, row=1, col=column)


def over_time_html(rows: Sequence[Row], metrics: Mapping[str, Any]) -> str:
    """Output tokens per second of the completed requests, and all requests in flight, over the same seconds."""
    timed = timed_rows(rows)
    if not timed:
        return ""
    begin_s, end_s = span_seconds(timed)
    width_s = _window_s(end_s - begin_s)
    edges_s = begin_s + width_s * np.arange(max(1, int((end_s - begin_s) / width_s)) + 1)
    edges_s[-1] = end_s  # the last window is up to twice as wide, so that none is cut off
    instants_s, tokens = _token_instants(rows)
    rates = np.histogram(np.clip(instants_s, begin_s, end_s), edges_s, weights=tokens)[0] / np.diff(edges_s)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    line = {"color": _BLUE, "width": 1.5, "shape": "hv"}
    fill = {"fill": "tozeroy", "fillcolor": "rgba(52, 104, 168, 0.12)"}
    rate_hover, flight_hover = "%{x:.4g} s: %{y:,.4g} tokens/s<extra></extra>", "%{x:.4g} s: %{y} in flight<extra></extra>"
    figure.add_trace(
        go.Scatter(
            x=plain_list(edges_s, 5), y=plain_list(np.append(rates, rates[-1])), line=line, mode="lines", hovertemplate=rate_hover, **fill
        ),
        row=1,
        col=1,
    )
    at_s, in_flight = _in_flight(column_of(timed, "start_ms") / 1e3, column_of(timed, "end_ms") / 1e3)
    figure.add_trace(
        go.Scatter(x=plain_list(at_s, 5), y=in_flight.tolist(), line=line, mode="lines", hovertemplate=flight_hover, **fill), row=2, col=1
    )
    means = (("output_tokens_per_s", 1), ("concurrency_mean", 2))
    shown = [(mean, row) for name, row in means if math.isfinite(mean := to_float(metrics.get(name)))]
    for mean, row in shown:
        figure.add_hline(y=mean, line={"color": _INK, "width": 1, "dash": "dot"}, row=row, col=1)
    counted_s = known_values(column_of([row for row in rows if row.get("in_window")], "start_ms")) / 1e3
    uncounted = counted_s.size > 0 and any(not row.get("in_window") and row.get("failure") is None for row in rows)
    if uncounted:
        figure.add_vrect(x0=begin_s, x1=float(counted_s.min()), fillcolor="#6b7785", opacity=0.13, line_width=0, layer="below")
    figure.update_yaxes(title_text="output tokens/s", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title_text="requests in flight", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(range=[begin_s, end_s])
    figure.update_xaxes(title_text="seconds since the load point's start", row=2, col=1)
    figure.update_layout(height=400, showlegend=False)
    note = f"Tokens of completed requests, in windows of {width_s:g} s; all requests in flight."
    note += " Dotted: the means of the tables, of completed requests." if shown else ""
    note += " Shaded: requests that started there do not count." if uncounted else ""
    return figure_html(figure, "Over time", note)


def _window_s(span_s: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that makes at most THROUGHPUT_WINDOWS windows."""
    least_s = max(span_s / THROUGHPUT_WINDOWS, 1e-3)
    power = 10.0 ** math.floor(math.log10(least_s))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least_s * (1 - 1e-9))


def _token_instants(rows: Sequence[Row]) -> tuple[Floats, Floats]:
    """When output came, in seconds, and how many tokens each time: a request's tokens are spread evenly over its chunks."""
    instants_s, tokens = [np.empty(0)], [np.empty(0)]
    for row in rows:
        first_ms = to_float(row.get("first_token_ms"))
        if row.get("failure") is not None or not math.isfinite(first_ms):
            continue
        arrivals_ms = first_ms + np.concatenate(([0.0], np.cumsum(gaps_of(row))))
        output_tokens = to_float(row.get("output_tokens"))
        each = output_tokens / arrivals_ms.size if math.isfinite(output_tokens) else 1.0
        instants_s.append(arrivals_ms / 1e3)
        tokens.append(np.full(arrivals_ms.size, each))
    return np.concatenate(instants_s), np.concatenate(tokens)


def _in_flight(starts_s: Floats, ends_s: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """How many requests are in flight from each instant on: at every start and end, or on a grid where those are too many."""
    at_s = np.unique(np.concatenate((starts_s, ends_s)))
    if at_s.size > MAX_IN_FLIGHT_POINTS:
        at_s = np.linspace(at_s[0], at_s[-1], MAX_IN_FLIGHT_POINTS)
    started, ended = (np.searchsorted(np.sort(instants), at_s, side="right") for instants in (starts_s, ends_s))
    return at_s, started - ended


def gantt_html(rows: Sequence[Row], max_bars: int) -> str:
    """A bar a request in the order of their starts: late, waiting for the first token, receiving tokens; failed ones all red."""
    timed = timed_rows(rows)
    if not timed:
        return ""
    picked = np.unique(np.linspace(0, len(timed) - 1, min(len(timed), max_bars)).round().astype(int)).tolist()
    shown = [timed[place] for place in picked]
    bars: dict[Phase, list[tuple[float, float, float, str]]] = {phase: [] for phase in _COLOURS}
    step = len(timed) / len(shown)
    for place, row in enumerate(shown):
        for phase, from_ms, to_ms, text in _phases(row):
            bars[phase].append((round((place + 0.5) * step + 0.5, 2), from_ms, to_ms, text))
    figure = go.Figure()
    for phase, spans in bars.items():
        if spans:
            places, begins_ms, ends_ms, texts = zip(*spans, strict=True)
            begins_s, lengths_s = np.asarray(begins_ms) / 1e3, (np.asarray(ends_ms) - np.asarray(begins_ms)) / 1e3
            figure.add_trace(
                go.Bar(
                    orientation="h",
                    y=places,
                    base=plain_list(begins_s, 5),
                    x=plain_list(lengths_s, 5),
                    name=phase,
                    # an outline, so that a request that failed at once is seen too
                    marker={"color": _COLOURS[phase], "line": {"width": 2 if phase == "failed" else 0, "color": _RED}},
                    hovertext=texts,
                    hovertemplate="%{hovertext}<extra></extra>",
                )
            )
    height = max(240, min(720, 110 + 12 * len(shown)))
    figure.update_layout(
        barmode="overlay",
        bargap=0.0 if len(shown) > 60 else 0.25,
        height=height,
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal"},
        margin={"t": 30},
        hovermode="closest",
    )
    figure.update_traces(width=step if step > 1 else None)
    figure.update_xaxes(title_text="seconds since the load point's start", range=span_seconds(timed))
    figure.update_yaxes(title_text="request, in the order of their starts", range=[len(timed) + 0.5, 0.5], showgrid=False)
    cut = "" if len(shown) == len(timed) else f"{len(shown):,} of {len(timed):,} requests, evenly picked. "
    return figure_html(figure, "Requests", f"{cut}A bar a request, from when it was due to its end; point at one for its numbers.")


def _phases(row: Row) -> list[tuple[Phase, float, float, str]]:
    """The bars of a request: phase, from and to in milliseconds, and what to say of it."""
    start_ms, end_ms, due_ms, first_ms = (to_float(row.get(name)) for name in ("start_ms", "end_ms", "due_ms", "first_token_ms"))
    name = f"request {as_text(row.get('index'))}" + (f", turn {as_text(row['turn'])}" if row.get("turn") else "")
    tokens = as_count(row.get("output_tokens"))
    if row.get("failure") is not None:
        said = f"{name}: {as_text(row['failure'])} after {as_number(end_ms - start_ms)} ms<br>{as_text(row.get('detail') or None)}"
        phases: list[tuple[Phase, float, float, str]] = [("failed", start_ms, end_ms, said)]
    elif math.isfinite(first_ms):
        phases = [
            ("waiting for the first token", start_ms, first_ms, f"{name}: first token {as_number(first_ms - start_ms)} ms after the send"),
            ("receiving tokens", first_ms, end_ms, f"{name}: {tokens} tokens in {as_number(end_ms - first_ms)} ms"),
        ]
    else:
        phases = [("waiting for the first token", start_ms, end_ms, f"{name}: no token")]
    if start_ms > due_ms:
        phases.insert(0, ("sent later than due", due_ms, start_ms, f"{name}: sent {as_number(start_ms - due_ms)} ms later than due"))
    return phases


def curve_figure(runs: Sequence[Run]) -> go.Figure | None:
    """TTFT and TPOT against output tokens and requests per second, a point a run, joined in the order of the load where it differs."""
    levels = [_load_level(run.document) for run in runs]
    by_level = all(math.isfinite(level) for level in levels) and len(set(levels)) > 1
    order = sorted(range(len(runs)), key=lambda place: levels[place]) if by_level else list(range(len(runs)))
    names = [as_level(levels[place]) if by_level else str(place + 1) for place in order]
    figure = make_subplots(rows=2, cols=2, shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.06)
    drawn = False
    scales = {
        rate: _scale([_point(run.document, rate, "ttft_ms")[0] for run in runs]) for rate in ("output_tokens_per_s", "requests_per_s")
    }
    for row, latency in enumerate(("ttft_ms", "tpot_ms"), 1):
        highest = max(
            (p90 + up for _, p90, _, up in (_point(run.document, "requests_per_s", latency) for run in runs) if p90 >= 0), default=1.0
        )
        for column, rate in enumerate(("output_tokens_per_s", "requests_per_s"), 1):
            points = [(name, runs[place], *_point(runs[place].document, rate, latency)) for name, place in zip(names, order, strict=True)]
            points = [point for point in points if math.isfinite(point[2]) and math.isfinite(point[3])]
            drawn = drawn or bool(points)
            figure.add_trace(
                go.Scatter(
                    x=[point[2] for point in points],
                    y=[point[3] for point in points],
                    error_y={
                        "type": "data",
                        "symmetric": False,
                        "array": [point[5] for point in points],
                        "arrayminus": [point[4] for point in points],
                        "color": _GREY,
                        "thickness": 1,
                        "width": 3,
                    },
                    text=[point[0] for point in points],
                    customdata=[as_text(point[1].label) for point in points],
                    mode=("lines+" if by_level else "") + "markers" + ("+text" if len(runs) <= MAX_LABELLED_RUNS else ""),
                    textposition="top center",
                    textfont={"size": 11, "color": _INK},
                    line={"color": _BLUE, "width": 1.5},
                    marker={"color": _BLUE, "size": 8},
                    hovertemplate="%{customdata}<br>%{x:,.4g} per second, %{y:,.4g} ms<extra></extra>",
                ),
                row=row,
                col=column,
            )
        figure.update_yaxes(range=[0, 1.25 * highest], row=row)
        figure.update_yaxes(title_text=f"{LATENCIES[latency]} p90, ms", row=row, col=1)
    for column, (rate, title) in enumerate((("output_tokens_per_s", "output tokens/s"), ("requests_per_s", "requests/s")), 1):
        figure.update_xaxes(type=scales[rate], rangemode="tozero", col=column)
        figure.update_xaxes(title_text=title + (", logarithmic" if scales[rate] == "log" else ""), row=2, col=column)
    figure.update_layout(height=520, showlegend=False)
    return figure if drawn else None


def _scale(values: Sequence[float]) -> Literal["linear", "log"]:
    """Of an axis: a search that doubles the load needs a logarithmic one, or its first half is a blot at the left."""
    known = [value for value in values if math.isfinite(value)]
    return "log" if known and min(known) > 0 and max(known) > LOG_SCALE_FROM_RATIO * min(known) else "linear"


def _point(document: Mapping[str, Any], rate: str, latency: str) -> tuple[float, float, float, float]:
    """A run's throughput and p90, and how far its 95 % interval reaches down and up (0 where it is not known)."""
    metrics, intervals = to_mapping(document.get("metrics")), to_mapping(document.get("intervals"))
    p90 = to_float(to_mapping(metrics.get(latency)).get("p90"))
    bounds = intervals.get(f"{latency.removesuffix('_ms')}_p90_ms") or (None, None)
    low, high = (to_float(bound) for bound in bounds)
    down, up = (max(0.0, p90 - low), max(0.0, high - p90)) if math.isfinite(high - low) else (0.0, 0.0)
    return to_float(metrics.get(rate)), p90, down, up


def _load_level(document: Mapping[str, Any]) -> float:
    load = to_mapping(document.get("load"))
    concurrency = to_float(load.get("concurrency"))
    return concurrency if math.isfinite(concurrency) else to_float(load.get("rate_per_s"))


def figure_html(figure: go.Figure, title: str, note: str) -> str:
    """The figure's place and its data, which SCRIPT draws. Plotly writes JSON without a `<` in it, so that no text can end the script."""
    figure.update_layout(
        template="none",
        font={"family": "system-ui, -apple-system, 'Segoe UI', sans-serif", "size": 12, "color": _INK},
        margin={"l": 10, "r": 14, "b": 10, **({"t": 12} if figure.layout.margin.t is None else {})},
        hoverlabel={"bgcolor": "white", "font": {"color": _INK}, "align": "left"},
    )
    figure.update_xaxes(**_AXIS, title_standoff=8)
    figure.update_yaxes(**_AXIS, title_standoff=8)
    return (
        f"<figure><figcaption><b>{title}</b> {note}</figcaption><div class='plot' style='height:{figure.layout.height}px'></div>"
        f"<script type='application/json'>{figure.to_json()}</script></figure>"
    )
