"""`./dyno bench`: measure any server that streams tokens, with Dyno's own load generator. Needs no database and no other part of Dyno."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from json import loads
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.progress import Progress

from assets.benchmark.bench import (
    Bench,
    BenchError,
    Load,
    Run,
    Workload,
    at_concurrency,
    at_rate,
    between_runs,
    closed_loop_requests,
    open_bench,
    profile_text,
)
from assets.benchmark.load.api_formats import API_FORMATS, COMPLETIONS
from assets.benchmark.load.arrivals import RateProfile
from assets.benchmark.load.endpoint import Endpoint
from assets.benchmark.load.find_max import Found, find_max
from assets.benchmark.load.lengths import HELP as LENGTHS_HELP
from assets.benchmark.load.lengths import Lengths
from assets.benchmark.load.objectives import HELP as OBJECTIVES_HELP
from assets.benchmark.load.objectives import Objective, missed, parse_objectives
from assets.benchmark.load.prompts import ModelTokenizer
from assets.benchmark.load.session import Live
from assets.benchmark.load.statistics import QUALITY_FLAGS
from assets.benchmark.load.traces import TracedRequest, read_trace
from assets.benchmark.measurement import evidence_lines
from orchestration import console

DEFAULT_REQUESTS = 100
DEFAULT_TIMEOUT_S = 300.0
DEFAULT_DURATION_S = 60.0
FIND_MAX_CONCURRENCY = 1024
FIND_MAX_RATE_PER_S = 1000.0
STANDARD_OUTPUT = "-"
_LATENCIES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "itl_ms": "ITL", "e2e_ms": "e2e"}
_STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def bench(  # noqa: PLR0917  # one parameter an option; typer passes them by name
    url: Annotated[str, typer.Option(help="Address of the server: http://HOST:PORT, https://HOST, or unix:/PATH.")],
    model: Annotated[str, typer.Option(help="Model name as the server knows it.")],
    api: Annotated[str, typer.Option(help=f"What the server speaks: {', '.join(API_FORMATS)}.")] = COMPLETIONS.name,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Closed loop: requests in flight at once. [default: 1]")] = None,
    ramp_s: Annotated[float, typer.Option(min=0, help="Closed loop: start the streams over this many seconds.")] = 0.0,
    throughput: Annotated[bool, typer.Option("--throughput", help="All requests at once: as fast as the server goes.")] = False,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Open loop: requests per second, whether or not others have ended.")] = None,
    rate_to: Annotated[float | None, typer.Option(min=0.001, help="Open loop: ramp from --rate to this rate over --duration.")] = None,
    stages: Annotated[str | None, typer.Option(help="Open loop in steps RATE:SECONDS, e.g. 5:30,10:30,20:30.")] = None,
    arrival: Annotated[str, typer.Option(help="Open loop: constant, poisson or gamma.")] = "poisson",
    burstiness: Annotated[float, typer.Option(min=0.001, help="Gamma arrivals: 1 is Poisson, less is burstier.")] = 1.0,
    trace: Annotated[Path | None, typer.Option(help="Replay a trace: Azure's CSV or Mooncake's JSONL.")] = None,
    trace_speed: Annotated[float, typer.Option(min=0.001, help="Replay the trace this many times as fast.")] = 1.0,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests to measure (of a trace: the first ones). [default: 100]")] = None,
    duration: Annotated[float | None, typer.Option(min=0.1, help="Seconds after which nothing new is sent.")] = None,
    precision: Annotated[
        float | None,
        typer.Option(min=0.001, max=1, help="End early, from 100 requests on, once p90s are known to this share, e.g. 0.05."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measure this many times, and tell the variance between the runs.")] = 1,
    input_tokens: Annotated[str, typer.Option(help=f"Tokens of each prompt: {LENGTHS_HELP}.")] = "512",
    output_tokens: Annotated[str, typer.Option(help="Tokens of each answer, in the same notation.")] = "128",
    shared_prefix: Annotated[float, typer.Option(min=0, max=1, help="Share of each prompt that all of them begin with.")] = 0.0,
    turns: Annotated[int, typer.Option(min=1, help="Turns of each conversation; answers become part of the next prompt.")] = 1,
    think_time_s: Annotated[float, typer.Option(min=0, help="Pause before each further turn, in seconds.")] = 0.0,
    dataset: Annotated[
        Path | None, typer.Option(help="Prompts from a JSONL file: a prompt, messages or ShareGPT conversations a line.")
    ] = None,
    extra_body: Annotated[
        str | None, typer.Option(metavar="JSON", help="Further fields of every request, e.g. '{\"cache_prompt\": false}'.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="The model's tokenizer.json: prompts of exact length. Without it the server's count sizes them.")
    ] = None,
    find_max_load: Annotated[
        bool, typer.Option("--find-max", help="Find the highest concurrency (with --rate: the highest rate) that meets --slo.")
    ] = False,
    slo: Annotated[str | None, typer.Option(help=f"Objectives: {OBJECTIVES_HELP}.")] = None,
    json: Annotated[
        str | None, typer.Option("--json", metavar="[FILE]", help="Write the result as one JSON document: to FILE, or to standard output.")
    ] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write every request to this Parquet file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report with plots to this HTML file.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="DYNO_API_KEY", show_envvar=True, help="Key for the server.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Accept any TLS certificate.")] = False,
    ca_file: Annotated[Path | None, typer.Option(help="PEM file of the certificate authorities to trust.")] = None,
    timeout_s: Annotated[float, typer.Option(min=0.001, help="Longest that a request may take, in seconds.")] = DEFAULT_TIMEOUT_S,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Load processes. [default: one a core, as far as the streams need them]")
    ] = None,
    calibrate: Annotated[bool, typer.Option(help="First measure the client's own error on this machine at this load.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of prompts, arrivals and intervals.")] = 0,
) -> None:
    """Measure a server: time to first token, time per output token, latency and throughput.

    The load is a closed loop (--concurrency), an open one (--rate, --stages, --trace), or a search (--find-max). Synthetic prompts are
    unique, so that no prefix cache answers for the model. Definitions: docs/metrics.md; how it measures and how right it is:
    docs/load-generator.md.

    Examples:

    ./dyno bench --url http://127.0.0.1:8000 --model m --concurrency 16 --requests 200

    ./dyno bench --url http://127.0.0.1:8000 --model m --rate 20 --arrival poisson --duration 60 --json result.json --html report.html

    ./dyno bench --url http://127.0.0.1:8000 --model m --find-max --slo "ttft_p90<=300,tpot_p90<=50"
    """
    objectives = parse_objectives(slo) if slo is not None else ()
    if find_max_load and not objectives:
        raise BenchError("--find-max needs --slo: the objectives that the load must meet, e.g. --slo 'ttft_p90<=300,tpot_p90<=50'")
    _check_combination(
        find_max_load=find_max_load, repeats=repeats, turns=turns, think_time_s=think_time_s, arrival=arrival,
        burstiness=burstiness, throughput=throughput, rate=rate, rate_to=rate_to, stages=stages, trace=trace,
        requests=requests, duration=duration, precision=precision,
    )  # fmt: skip
    outputs = {"--json": None if json in {None, STANDARD_OUTPUT} else Path(json or ""), "--parquet": parquet, "--html": html}
    for option, path in outputs.items():
        with _output(option, path):
            if path is not None:
                path.open("ab").close()  # before anything is measured for it
    traced = _trace(trace, requests, trace_speed)
    load = _load(
        concurrency=concurrency, ramp_s=ramp_s, throughput=throughput, rate=rate, rate_to=rate_to, stages=stages, arrival=arrival,
        burstiness=burstiness, traced=traced, requests=requests, duration=duration, precision=precision,
    )  # fmt: skip
    workload = Workload(
        Lengths.parse(input_tokens), Lengths.parse(output_tokens), shared_prefix, turns, think_time_s, dataset=dataset, trace=traced
    )
    if api not in API_FORMATS:
        raise BenchError(f"--api {api} is unknown; one of {', '.join(API_FORMATS)}")
    subject = open_bench(
        url,
        Endpoint.parse(url, api_key, verify=not insecure, ca_file=None if ca_file is None else str(ca_file)),
        model,
        workload,
        api=API_FORMATS[api],
        tokenizer=None if tokenizer is None else ModelTokenizer.from_file(tokenizer),
        timeout_s=timeout_s,
        extra_body=_extra_body(extra_body),
        seed=seed,
        calibrated=calibrate,
        processes=processes,
    )
    for sentence in subject.notes:
        console.warn(sentence)
    with console.progress() as bar:
        screen = _Screen(bar, model)
        if find_max_load:
            found = _search(subject, load, objectives, screen)
            runs = [probe.result for probe in found.probes]
            document = _found_document(found, objectives, by_rate=load.profile is not None)
        else:
            runs = []
            for repeat in range(repeats):
                subject.seed = seed + repeat  # other prompts and other instants, or only a part of the variance would show
                runs.append(screen.measure(subject, load, objectives))
            document = {**runs[0].document, **_repeated(runs)}
    if json == STANDARD_OUTPUT:
        console.print_json(document)
    else:
        _print(document, runs)
    _write(document, runs, outputs)
    for run in runs:
        sent, completed = run.statistics.requests_sent, run.statistics.requests_completed
        if completed < sent / 2:
            record = next(record for record in run.result.records if record.failure is not None)
            raise BenchError(f"only {completed} of {sent} requests completed; the first that failed: {record.failure}, {record.detail}")


def _extra_body(text: str | None) -> dict[str, Any]:
    """Raises BenchError where it is no JSON object."""
    try:
        document = {} if text is None else loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BenchError(f"--extra-body {text}: give a JSON object, e.g. '{{\"cache_prompt\": false}}'")
    return document


def _check_combination(
    *,
    find_max_load: bool,
    repeats: int,
    turns: int,
    think_time_s: float,
    arrival: str,
    burstiness: float,
    throughput: bool,
    rate: float | None,
    rate_to: float | None,
    stages: str | None,
    trace: Path | None,
    requests: int | None,
    duration: float | None,
    precision: float | None,
) -> None:
    """Raises BenchError for options of which one would be ignored."""
    for wrong, sentence in (
        (find_max_load and repeats > 1, "--find-max and --repeats: a search repeats nothing; measure at the load that it finds"),
        (find_max_load and bool(throughput or rate_to or stages or trace), "--find-max searches a concurrency or a --rate, no other load"),
        (
            precision is not None and bool(throughput or rate or stages or trace),
            "--precision ends a closed loop: an open one has its length; leave it out, or give --concurrency",
        ),
        (think_time_s > 0 and turns == 1, "--think-time-s is a pause between turns: give --turns too"),
        (burstiness != 1 and arrival != "gamma", "--burstiness is of --arrival gamma: give that too"),
        (stages is not None and (requests or duration) is not None, "--stages say how long they are: leave --requests and --duration out"),
        (rate_to is not None and requests is not None, "--rate-to has a --duration, from which the requests follow: leave --requests out"),
    ):
        if wrong:
            raise BenchError(sentence)


class _Screen:
    """The live line of a load point under way: how far, at which rate, how fast the first tokens come, how many failed."""

    def __init__(self, bar: Progress, model: str) -> None:
        self._bar, self._model = bar, model

    def measure(self, subject: Bench, load: Load, objectives: Sequence[Objective]) -> Run:
        title = f"{self._model} at {_describe(load)}"
        first = "calibrating the client, warming up" if subject.calibrated else "warming up"
        task = self._bar.add_task(f"{title}: {first}", total=None)
        last: list[Live] = []

        def on_live(live: Live) -> None:
            known = [record.ttft_ms for record in live.sample if record.ttft_ms is not None]
            failed = sum(record.failure is not None for record in live.sample)
            first_token = f", TTFT p50 {median(known):.0f} ms" if known else ""
            errors = f", [red]{failed} failed[/red]" if failed else ""
            last[:] = [live]
            completed = live.done * (1 - failed / len(live.sample)) if live.sample else 0.0
            rate = f"{completed / max(live.elapsed_s, 1e-9):.1f} req/s"
            by_time = load.requests is None and load.duration_s is not None
            total, done = (load.duration_s, live.elapsed_s) if by_time else (live.total, live.done)
            self._bar.update(task, total=total, completed=done, description=f"{title}: {rate}{first_token}{errors}")

        try:
            run = subject.measure(load, objectives, on_live)
        except (KeyboardInterrupt, SystemExit):
            done = last[0].done if last else 0
            console.warn(f"interrupted after {done} requests at {_describe(load)}: nothing is written of an unfinished load point")
            raise
        sent = run.statistics.requests_sent
        self._bar.update(task, total=sent, completed=sent, description=title)
        return run


def _describe(load: Load) -> str:
    if load.concurrency is not None:
        return f"concurrency {load.concurrency}"
    return "the trace's pace" if load.profile is None else profile_text(load.profile.points)


def _trace(path: Path | None, limit: int | None, speed: float) -> tuple[TracedRequest, ...]:
    return () if path is None else tuple(read_trace(path, limit, speed))


def _load(
    *,
    concurrency: int | None,
    ramp_s: float,
    throughput: bool,
    rate: float | None,
    rate_to: float | None,
    stages: str | None,
    arrival: str,
    burstiness: float,
    traced: tuple[TracedRequest, ...],
    requests: int | None,
    duration: float | None,
    precision: float | None,
) -> Load:
    """The load that the options ask for. Raises BenchError where they contradict one another."""
    modes = {
        "--concurrency": concurrency is not None,
        "--throughput": throughput,
        "--rate": rate is not None,
        "--stages": stages is not None,
        "--trace": bool(traced),
    }
    given = [name for name, is_given in modes.items() if is_given]
    if len(given) > 1:
        raise BenchError(f"give one of {', '.join(given)}: each is a load of its own")
    if rate_to is not None and rate is None:
        raise BenchError("--rate-to needs --rate: the rate to ramp from")
    if arrival not in {"constant", "poisson", "gamma"}:
        raise BenchError(f"--arrival {arrival} is unknown; one of constant, poisson, gamma")
    if traced:
        return Load(len(traced), duration_s=duration)
    if rate is not None or stages is not None:
        profile = _profile(rate, rate_to, stages, requests, duration)
        return Load(max(1, profile.requests), profile=profile, arrival=arrival, burstiness=burstiness)  # type: ignore[arg-type]  # checked above
    streams = concurrency or 1
    if throughput:
        count = requests or DEFAULT_REQUESTS
        return Load(count, concurrency=count, duration_s=duration, unbounded=True)
    if duration is not None and requests is None:
        least = None if precision is None else DEFAULT_REQUESTS
        return Load(None, concurrency=streams, ramp_s=ramp_s, duration_s=duration, least=least, precision=precision or 0.05)
    count = closed_loop_requests(streams, requests, DEFAULT_REQUESTS if precision is None else 5 * DEFAULT_REQUESTS)
    least = None if precision is None else min(DEFAULT_REQUESTS, count)
    return Load(count, concurrency=streams, ramp_s=ramp_s, duration_s=duration, least=least, precision=precision or 0.05)


def _profile(rate: float | None, rate_to: float | None, stages: str | None, requests: int | None, duration: float | None) -> RateProfile:
    if stages is not None:
        try:
            return RateProfile.staged([(float(step.split(":")[0]), float(step.split(":")[1])) for step in stages.split(",")])
        except (ValueError, IndexError) as error:
            raise BenchError(f"--stages {stages}: give RATE:SECONDS, comma-separated, e.g. 5:30,10:30,20:30") from error
    if rate is None:
        raise BenchError("an open loop needs --rate or --stages")
    if rate_to is not None:
        return RateProfile(((0.0, rate), (duration or DEFAULT_DURATION_S, rate_to)))
    if requests is not None and duration is not None:
        raise BenchError("an open loop at --rate has --requests or --duration: each follows from the other")
    return RateProfile.steady(rate, requests / rate if requests is not None else duration or DEFAULT_DURATION_S)


def _search(subject: Bench, load: Load, objectives: Sequence[Objective], screen: _Screen) -> Found[Run]:
    by_rate = load.profile is not None

    def measure(level: float) -> tuple[tuple[str, ...], Run]:
        run_load = at_rate(load, level) if by_rate else at_concurrency(load, int(level))
        run = screen.measure(subject, run_load, objectives)
        if "connect" in run.document["failures"]:
            raise BenchError(f"the server went away during the probe at {_describe(run_load)}: no search without it")
        limited = [f"client_limited: {reason}" for reason in run.document["client"]["limited"]]
        return (*missed(run.statistics, objectives), *limited), run

    start = load.rate_per_s if by_rate else load.concurrency
    limit = FIND_MAX_RATE_PER_S if by_rate else FIND_MAX_CONCURRENCY
    return find_max(measure, float(start or 1), float(max(limit, start or 1)), whole=not by_rate)


def _found_document(found: Found[Run], objectives: Sequence[Objective], *, by_rate: bool) -> dict[str, Any]:
    best = found.best or found.probes[0]
    probes = [
        {
            "load": probe.load,
            "met": not probe.missed,
            "missed": probe.missed,
            "goodput_per_s": probe.result.document["goodput_per_s"],
            "requests": probe.result.document["requests"],
            "metrics": probe.result.document["metrics"],
        }
        for probe in found.probes
    ]
    search = {
        "by": "rate_per_s" if by_rate else "concurrency",
        "objectives": [str(objective) for objective in objectives],
        "max": None if found.best is None else found.best.load,
        "goodput_per_s": None if found.best is None else found.best.result.document["goodput_per_s"],
        "bounded": found.bounded,
        "probes": probes,
    }
    return {**best.result.document, "find_max": search}


def _repeated(runs: Sequence[Run]) -> dict[str, Any]:
    if len(runs) < 2:
        return {}
    documents = [run.document for run in runs]
    flags = dict.fromkeys(flag for document in documents for flag in document["quality_flags"])
    told = ("requests", "failures", "metrics", "quality_flags")
    return {
        "quality_flags": list(flags),
        "flag_explanations": {flag: QUALITY_FLAGS[flag] for flag in flags},
        "repeats": [{name: document[name] for name in told} for document in documents],
        "between_runs": between_runs(documents),
    }


@contextmanager
def _output(option: str, path: Path | None) -> Iterator[None]:
    """Turns an error about a file that was asked for into a BenchError."""
    try:
        yield
    except OSError as error:
        raise BenchError(f"{option} {path} cannot be written: {error.strerror or error}") from error


def _write(document: Mapping[str, Any], runs: Sequence[Run], outputs: Mapping[str, Path | None]) -> None:
    json, parquet, html = outputs["--json"], outputs["--parquet"], outputs["--html"]
    with _output("--json", json):
        if json is not None:
            console.write_json(json, document)
    if parquet is None and html is None:
        return
    from assets.reporting import bench_report, bench_requests  # noqa: PLC0415  # slow to import

    reported = [
        bench_requests.Run(
            _title(run, number, len(runs)), run.document, evidence_lines(run.result.records, run.result.start_ns, run.statistics.window)
        )
        for number, run in enumerate(runs, 1)
    ]
    with _output("--parquet", parquet):
        if parquet is not None:
            bench_requests.write_requests(parquet, reported)
    with _output("--html", html):
        if html is not None:
            html.write_text(bench_report.render(document, reported), encoding="utf-8")


def _title(run: Run, number: int, count: int) -> str:
    load = run.document["load"]
    at = f"concurrency {load['concurrency']}" if load["concurrency"] else profile_text(load["profile"]) if load["profile"] else "trace"
    return at if count == 1 else f"{number}: {at}"


def _print(document: Mapping[str, Any], runs: Sequence[Run]) -> None:
    metrics, requests, window, client = document["metrics"], document["requests"], document["window"], document["client"]
    search = document.get("find_max")
    if search is not None:
        _print_search(search)
    heading = f"{document['model']} at {_title(runs[0], 1, 1) if search is None else _best_title(search)}, milliseconds"
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
