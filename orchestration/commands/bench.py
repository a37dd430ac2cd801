"""`./dyno bench`: measure any server that streams tokens, with Dyno's own load generator. Needs no database and no other part of Dyno."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.progress import Progress

from assets.benchmark.bench import Bench, Run, open_bench
from assets.benchmark.bench_document import between_runs, profile_text
from assets.benchmark.bench_load import BenchError, Load, Workload, at_concurrency, at_rate
from assets.benchmark.load.api_formats import API_FORMATS, COMPLETIONS
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
from orchestration.bench_options import DEFAULT_TIMEOUT_S, check_combination, extra_body_of, load_of
from orchestration.bench_tables import print_bench, title_of

FIND_MAX_CONCURRENCY = 1024
FIND_MAX_RATE_PER_S = 1000.0
STANDARD_OUTPUT = "-"


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
    check_combination(
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
    load = load_of(
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
        extra_body=extra_body_of(extra_body),
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
        print_bench(document, runs)
    _write(document, runs, outputs)
    for run in runs:
        sent, completed = run.statistics.requests_sent, run.statistics.requests_completed
        if completed < sent / 2:
            record = next(record for record in run.result.records if record.failure is not None)
            raise BenchError(f"only {completed} of {sent} requests completed; the first that failed: {record.failure}, {record.detail}")


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
            title_of(run, number, len(runs)), run.document, evidence_lines(run.result.records, run.result.start_ns, run.statistics.window)
        )
        for number, run in enumerate(runs, 1)
    ]
    with _output("--parquet", parquet):
        if parquet is not None:
            bench_requests.write_requests(parquet, reported)
    with _output("--html", html):
        if html is not None:
            html.write_text(bench_report.render(document, reported), encoding="utf-8")
