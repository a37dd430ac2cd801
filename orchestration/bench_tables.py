"""A bench run as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from assets.benchmark.bench import Run
from assets.benchmark.bench_document import profile_text
from orchestration import console

_LATENCIES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "itl_ms": "ITL", "e2e_ms": "e2e"}
_STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def title_of(run: Run, number: int, count: int) -> str:
    load = run.document["load"]
    at = f"concurrency {load['concurrency']}" if load["concurrency"] else profile_text(load["profile"]) if load["profile"] else "trace"
    return at if count == 1 else f"{number}: {at}"


def print_bench(document: Mapping[str, Any], runs: Sequence[Run]) -> None:
    metrics, requests, window, client = document["metrics"], document["requests"], document["window"], document["client"]
    search = document.get("find_max")
    if search is not None:
        _print_search(search)
    heading = f"{document['model']} at {title_of(runs[0], 1, 1) if search is None else _best_title(search)}, milliseconds"
    latencies = [
        (title, *(_rounded(metrics[name][statistic]) for statistic in _STATISTICS), _interval(document, name))
        for name, title in _LATENCIES.items()
    ]
    console.print_table(heading, ("", *_STATISTICS, "p90, 95 % interval"), latencies)
    throughput: list[Sequence[object]] = [
        ("requests sent / completed / failed", f"{requests['sent']} / {requests['completed']} / {requests['failed']}"),
        *((f"  failed: {kind}", count) for kind, count in document["failures"].items()),
        ("counted, of window", f"{window['requests']}, {window['kind']} {window['duration_s']:.2f} s"),
        *((("  of these stopped before the asked length", document["stopped_early"]),) if document["stopped_early"] else ()),
        ("requests per second", _rounded(metrics["requests_per_s"])),
        ("output tokens per second", _rounded(metrics["output_tokens_per_s"])),
        ("total tokens per second", _rounded(metrics["total_tokens_per_s"])),
        ("input / output tokens, mean", f"{_text(metrics['input_tokens_mean'])} / {_text(metrics['output_tokens_mean'])}"),
        ("concurrency, mean", _rounded(metrics["concurrency_mean"])),
        *((("goodput, requests per second", _rounded(document["goodput_per_s"])),) if "goodput_per_s" in document else ()),
        ("client error, p50 / p99, ms", f"{_text(client['error_ms']['p50'], 3)} / {_text(client['error_ms']['p99'], 3)}"),
        ("schedule lag, p50 / p99, ms", f"{_text(client['schedule_lag_ms']['p50'], 3)} / {_text(client['schedule_lag_ms']['p99'], 3)}"),
    ]
    console.print_table("Throughput, and the client itself", ("", "value"), throughput)
    if "repeats" in document:
        of_runs = [
            (
                number,
                " / ".join(str(run["requests"][name]) for name in ("sent", "completed", "failed")),
                *(_rounded(run["metrics"][name]["p90"]) for name in ("ttft_ms", "tpot_ms", "e2e_ms")),
                _rounded(run["metrics"]["output_tokens_per_s"]),
            )
            for number, run in enumerate(document["repeats"], 1)
        ]
        columns = ("run", "sent / completed / failed", "TTFT p90", "TPOT p90", "e2e p90", "output tokens/s")
        console.print_table("Each run (the tables above are of the first)", columns, of_runs)
    if document.get("between_runs"):
        shown = ("ttft_ms.p90", "tpot_ms.p90", "e2e_ms.p90", "output_tokens_per_s")
        spread = [
            (name, *(_rounded(document["between_runs"][name][key]) for key in ("mean", "sd")), document["between_runs"][name]["runs"])
            for name in shown
            if name in document["between_runs"]
        ]
        console.print_table(f"Between {len(runs)} runs", ("", "mean", "standard deviation", "of runs"), spread)
    for flag, explanation in document["flag_explanations"].items():
        console.warn(f"{flag}: {explanation}")
    for reason in client["limited"]:
        console.warn(f"client_limited: {reason}")


def _best_title(search: Mapping[str, Any]) -> str:
    return _level(search, search["max"] if search["max"] is not None else search["probes"][0]["load"])


def _level(search: Mapping[str, Any], load: float) -> str:
    return f"{load:.4g} req/s" if search["by"] == "rate_per_s" else f"concurrency {load:.0f}"


def _print_search(search: Mapping[str, Any]) -> None:
    rows = [
        (
            _level(search, probe["load"]),
            *(_rounded(probe["metrics"][metric]["p90"]) for metric in ("ttft_ms", "tpot_ms")),
            _rounded(probe["metrics"]["output_tokens_per_s"]),
            _rounded(probe["goodput_per_s"]),
            "yes" if probe["met"] else "; ".join(probe["missed"]),
        )
        for probe in search["probes"]
    ]
    columns = ("load", "TTFT p90", "TPOT p90", "output tok/s", "goodput req/s", f"met {', '.join(search['objectives'])}")
    console.print_table("Probes", columns, rows)
    if search["max"] is None:
        console.warn("no load of the search meets the objectives: the numbers below are of its first probe")
        return
    limit = "" if search["bounded"] else " (the limit of the search: the true maximum may be higher)"
    goodput = f"goodput {_text(search['goodput_per_s'], 2)} requests per second"
    console.out.print(f"{', '.join(search['objectives'])}: met up to {_level(search, search['max'])}{limit}, {goodput}", soft_wrap=True)


def _interval(document: Mapping[str, Any], metric: str) -> str:
    bounds = document["intervals"].get(f"{metric.removesuffix('_ms')}_p90_ms")
    return "-" if bounds is None else f"{bounds[0]:.2f} to {bounds[1]:.2f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _text(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
