"""`dyno bench` without its screen: measure any server that streams tokens, and say everything that is known of the measurement.

The document of a run is stable (docs/bench.md): fields are added, not renamed; `format` changes otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from assets.benchmark.bench_document import load_document, statistics_document
from assets.benchmark.bench_load import BenchError, Load, Workload, enough_for, streams_of
from assets.benchmark.engines.registry import ALL_METRICS, METRICS_PATHS
from assets.benchmark.load.api_formats import COMPLETIONS, ApiFormat
from assets.benchmark.load.arrivals import Arrivals, ClosedLoop, OpenLoop, open_loop
from assets.benchmark.load.calibration import Calibration, calibrate
from assets.benchmark.load.datasets import read_dataset
from assets.benchmark.load.decode import RequestRecord
from assets.benchmark.load.endpoint import Endpoint
from assets.benchmark.load.objectives import Objective, goodput_per_s
from assets.benchmark.load.probe import NoAnswerError, served_models
from assets.benchmark.load.prompts import ModelTokenizer, PromptSource, TextPrompts, TokenIdPrompts
from assets.benchmark.load.server_counters import read_counters
from assets.benchmark.load.session import Ask, CalibrationError, Conversation, Live, LoadResult, LoadSession, nonce_of
from assets.benchmark.load.statistics import QUALITY_FLAGS, Asked, LoadStatistics, load_statistics
from assets.benchmark.load.stopping import StoppingRule
from assets.benchmark.load.traces import trace_prompts
from assets.benchmark.load.truth_checks import cached_share, flags_of
from assets.benchmark.measurement import client_facts

FORMAT = "dyno-bench/1"
# As the worker does; fewer prompts would say too little of their mean length.
WARMUP_REQUESTS = 10
PROBE_TOKENS = 16
MODELS_TIMEOUT_S = 10.0
ADVICE = {
    "connect": "is the server up, and is this its address, port and protocol (http or https)?",
    "timeout": "it may still be loading its model; wait, or give more time with --timeout-s",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One load point measured: its document (docs/bench.md), and what it was made from."""

    document: dict[str, Any]
    statistics: LoadStatistics
    result: LoadResult


@dataclass(slots=True)
class Bench:
    """A server that answers, with prompts that fit it. Make it with `open_bench`."""

    url: str
    session: LoadSession
    prompts: PromptSource
    tokenizer: ModelTokenizer | None
    workload: Workload
    seed: int
    calibrated: bool = True
    processes: int | None = None
    fixed_length: bool = True
    notes: list[str] = field(default_factory=list)

    def measure(self, load: Load, objectives: Sequence[Objective] = (), on_live: Callable[[Live], None] | None = None) -> Run:
        """Calibrate the client at this load, warm the server up, and measure.

        Raises:
            ApiFormatError, ArrivalError, DatasetError: what is asked cannot be made.
            EndpointError, LoadProcessError, NoAnswerError, StoppedError: the load could not be put.
        """
        nonce = nonce_of(self.session.model, time.time_ns())
        calibration = self._calibrate(load) if self.calibrated else None
        fastest_s = self._warm_up(load, nonce + 1)
        described = load
        if load.requests is None:
            load = replace(load, requests=enough_for(load, fastest_s))
        arrivals = self._arrivals(load)
        requests = load.requests if isinstance(arrivals, ClosedLoop) else len(arrivals.due_s)
        conversations = self._conversations(requests or 1, nonce)
        rule = StoppingRule(load.least, load.precision, load.concurrency or 1) if load.least is not None else None
        before = read_counters(self.session.endpoint, ALL_METRICS, METRICS_PATHS)
        started_at = datetime.now(UTC)
        result = self.session.put(
            conversations, arrivals, duration_s=load.duration_s, processes=self.processes, on_live=on_live, enough=rule
        )
        counters = read_counters(self.session.endpoint, ALL_METRICS, METRICS_PATHS).since(before)
        statistics = load_statistics(result.records, self._asked(load), self.seed)
        client = client_facts(calibration, result, statistics)
        flags = flags_of(
            statistics, result.records, counters, limited=bool(client["limited"]), shared_prefix_share=self._expected_cache_share()
        )
        document = {
            "format": FORMAT,
            "url": self.url,
            "model": self.session.model,
            "api": self.session.api.name,
            "started_at": started_at.isoformat(),
            "load": load_document(described, arrivals),
            "workload": self._workload_document(),
            **statistics_document(statistics),
            "stopped_early": sum(_stopped_early(record, conversations) for record in result.records),
            "quality_flags": flags,
            "flag_explanations": {flag: QUALITY_FLAGS[flag] for flag in flags},
            "engine": {"counters": counters.known(), "prefix_cache_hit_share": cached_share(result.records, counters)},
            "client": {
                **client,
                "seed": self.seed,
                "nonce": nonce,
                "prompts": "token ids" if isinstance(self.prompts, TokenIdPrompts) else "text",
                "fixed_output_length": self.fixed_length,
            },
        }
        if objectives:
            document["goodput_per_s"] = goodput_per_s(result.records, statistics, objectives)
        return Run(document, statistics, result)

    def _arrivals(self, load: Load) -> Arrivals:
        if load.concurrency is not None:
            return ClosedLoop(streams_of(load), load.ramp_s)
        if load.profile is not None:
            return open_loop(load.profile, load.arrival, self.seed, load.burstiness)
        return OpenLoop(tuple(request.at_s for request in self.workload.trace))

    def _calibrate(self, load: Load) -> Calibration:
        if load.concurrency is not None:
            return calibrate(
                streams_of(load),
                processes=self.processes,
                transport=self.session.endpoint.transport,
                should_stop=self.session.should_stop,
            )
        rate = load.rate_per_s
        if rate is None:
            trace = self.workload.trace
            rate = len(trace) / max(trace[-1].at_s, 1.0)
        return calibrate(
            rate_per_s=rate,
            processes=self.processes,
            transport=self.session.endpoint.transport,
            should_stop=self.session.should_stop,
        )

    def _warm_up(self, load: Load, nonce: int) -> float:
        """With prompts that are not measured afterwards. Gives the seconds of the fastest answer; 0 where none came."""
        count, streams = WARMUP_REQUESTS, min(load.concurrency or WARMUP_REQUESTS, WARMUP_REQUESTS)
        conversations = self._synthetic(count, nonce) if self.workload.dataset is not None else self._conversations(count, nonce)
        records = self.session.put(conversations, ClosedLoop(streams), processes=1).records
        self._correct_prompts(records, count)
        return min((record.e2e_ms for record in records if record.failure is None and record.e2e_ms), default=0.0) / 1e3

    def _correct_prompts(self, records: Sequence[RequestRecord], count: int) -> None:
        """Two short probes have sized the words: what the server counts for prompts of the asked length is the better measure."""
        work = self.workload
        counted = [record.input_tokens for record in records if record.input_tokens is not None]
        if isinstance(self.prompts, TextPrompts) and counted and work.turns == 1 and work.dataset is None and not work.trace:
            self.prompts = self.prompts.corrected(fmean(work.input_tokens.sample(count, self.seed)), fmean(counted))

    def _conversations(self, count: int, nonce: int) -> list[Conversation]:
        work = self.workload
        if work.dataset is not None:
            return read_dataset(
                work.dataset, count, work.output_tokens.fixed or round(sum(work.output_tokens.sample(100, 0)) / 100), work.turns
            )
        if work.trace:
            trace = work.trace[:count]
            if isinstance(self.prompts, TokenIdPrompts):
                prompts = trace_prompts(trace, self.prompts.token_ids, self.seed, nonce)
            else:
                prompts = self.prompts.make([request.input_tokens for request in trace], self.seed, nonce)
            return [(Ask(prompt, request.output_tokens),) for prompt, request in zip(prompts, trace, strict=True)]
        return self._synthetic(count, nonce)

    def _synthetic(self, count: int, nonce: int) -> list[Conversation]:
        work = self.workload
        turns = count * work.turns
        lengths = work.input_tokens.sample(turns, self.seed), work.output_tokens.sample(turns, self.seed + 1)
        prompts = self.prompts.make(lengths[0], self.seed, nonce, work.shared_prefix_share)
        asks = [
            Ask(prompt, output_tokens, work.think_s if index % work.turns else 0.0)
            for index, (prompt, output_tokens) in enumerate(zip(prompts, lengths[1], strict=True))
        ]
        return [tuple(asks[start : start + work.turns]) for start in range(0, turns, work.turns)]

    def _asked(self, load: Load) -> Asked:
        work = self.workload
        own = work.dataset is not None or bool(work.trace)
        thinking = work.turns > 1 and work.think_s > 0
        return Asked(
            concurrency=None if load.concurrency is None or load.unbounded or thinking else streams_of(load),
            input_tokens=None if own or work.turns > 1 else work.input_tokens.fixed,
            output_tokens=None if own or not self.fixed_length else work.output_tokens.fixed,
            scheduled_s=0.0 if load.profile is None else load.profile.points[-1][0],
        )

    def _expected_cache_share(self) -> float:
        """What an engine may rightly answer from its prefix cache: a shared prefix, a conversation's past, a trace's common blocks."""
        return 1.0 if self.workload.turns > 1 or self.workload.trace else self.workload.shared_prefix_share

    def _workload_document(self) -> dict[str, Any]:
        work = self.workload
        return {
            "input_tokens": None if work.trace or work.dataset else work.input_tokens.text,
            "output_tokens": None if work.trace else work.output_tokens.text,
            "shared_prefix_share": work.shared_prefix_share,
            "turns": work.turns,
            "think_s": work.think_s,
            "dataset": None if work.dataset is None else work.dataset.name,
            "trace_requests": len(work.trace) or None,
        }


def open_bench(
    url: str,
    endpoint: Endpoint,
    model: str,
    workload: Workload,
    *,
    api: ApiFormat = COMPLETIONS,
    tokenizer: ModelTokenizer | None = None,
    timeout_s: float = 300.0,
    extra_body: Mapping[str, object] | None = None,
    seed: int = 0,
    calibrated: bool = True,
    processes: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Bench:
    """Try the server with small requests: does it answer, does it take what keeps answers equally long, how does it count prompts?

    Raises:
        BenchError: it does not answer, or not so; the message says what to do.
        TokenizerError: the tokenizer has no usable words.
    """
    extra = dict(extra_body or {})
    # a server may take `ignore_eos` and not heed it: an answer that ends by itself is then counted (`stopped_early`), not called a failure
    session = LoadSession(endpoint, model, timeout_s, api, {**api.fixed_length, **extra}, should_stop=should_stop, fixed_length=False)
    session.count_tokens = None if tokenizer is None else tokenizer.count
    notes: list[str] = []
    fixed_length = True
    try:
        prompts = _prompts(session, tokenizer, workload, seed, notes)
    except CalibrationError as error:
        if error.failure != "http_4xx":
            raise BenchError(_explain(session, error)) from error
        session.body_fields, fixed_length = extra, False
        try:
            prompts = _prompts(session, tokenizer, workload, seed, notes)
        except CalibrationError as again:
            raise BenchError(_explain(session, again)) from again
        notes.append(f"the server does not take {', '.join(api.fixed_length)}: answers may end early, so their lengths differ")
    with suppress(NoAnswerError):
        served = served_models(session.endpoint, min(timeout_s, MODELS_TIMEOUT_S))
        if served and model not in served:
            notes.append(f"the server answers to any model name: it serves {', '.join(served)}, not {model!r}")
    return Bench(url, session, prompts, tokenizer, workload, seed, calibrated, processes, fixed_length, notes)


def _prompts(session: LoadSession, tokenizer: ModelTokenizer | None, workload: Workload, seed: int, notes: list[str]) -> PromptSource:
    if tokenizer is not None and session.api.takes_token_ids and workload.turns == 1:
        ids = TokenIdPrompts(tokenizer.ordinary_ids)
        session.probe(ids.make([PROBE_TOKENS], seed, nonce_of("probe", time.time_ns()))[0])
        return ids
    words = TextPrompts() if tokenizer is None else TextPrompts(tokenizer.words())
    if workload.dataset is not None:
        session.probe(words.make([PROBE_TOKENS], seed, nonce_of("probe", time.time_ns()))[0])
        return words
    try:
        return session.calibrated_prompts(seed, words)
    except CalibrationError as error:
        if error.failure is not None or tokenizer is None:
            raise
        notes.append("the server does not count tokens (no `usage`): prompts are as long as the tokenizer says, without what a chat adds")
        return words


def _explain(session: LoadSession, error: CalibrationError) -> str:
    """The probe's failure and what to do: with the models that the server has when it refused ours."""
    if error.failure in ADVICE:
        return f"{session.endpoint.name}: {error}; {ADVICE[error.failure]}"
    if error.failure != "http_4xx":
        return str(error)
    try:
        served = served_models(session.endpoint, session.timeout_s)
    except NoAnswerError:
        return str(error)
    if served and session.model not in served:
        return f"the server does not serve {session.model!r}; it serves: {', '.join(served)}"
    return str(error)


def _stopped_early(record: RequestRecord, conversations: Sequence[Conversation]) -> bool:
    asked = conversations[record.index][record.turn].output_tokens
    return record.failure is None and record.output_tokens is not None and record.output_tokens < asked
