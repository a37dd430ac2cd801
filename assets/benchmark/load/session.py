"""Putting load on one server: prompts in, decoded records out. The worker, `dyno bench` and the calibration all measure through this."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns

from assets.benchmark.load.api_formats import COMPLETIONS, ApiFormat, Prompt
from assets.benchmark.load.arrivals import Arrivals, ClosedLoop
from assets.benchmark.load.background import with_idle_priority
from assets.benchmark.load.decode import Decoding, RequestRecord, TokenCounter, decode
from assets.benchmark.load.endpoint import Endpoint
from assets.benchmark.load.exchange import Exchange
from assets.benchmark.load.fleet import ClientReport, LoadRun, default_processes
from assets.benchmark.load.plan import Chain, LoadPlan, Turn
from assets.benchmark.load.prompts import TextPrompts

POLL_S = 0.05
# Enough for a live picture; decoding more would take the processor from what is being measured on a small machine.
LIVE_DECODES_PER_POLL = 8
# Two lengths make a line: tokens = overhead + tokens per word x words.
CALIBRATION_WORDS = (16, 64)
# A stream that goes on past these is one without an end. An event of one token takes 200 to 400 bytes with the engines that we know.
MIN_RESPONSE_BYTES = 2**20
RESPONSE_BYTES_PER_TOKEN = 4096
NO_USAGE = "the server does not say how many tokens a prompt has (no `usage` in its stream): give the model's tokenizer.json"


class StoppedError(Exception):
    """The load point was asked to stop before its end; what it has so far does not count."""


class CalibrationError(Exception):
    """Prompts cannot be sized: the server refuses them, or does not say how many tokens they have. `failure` is the failed probe's kind."""

    def __init__(self, message: str, failure: str | None) -> None:
        super().__init__(message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to make: a prompt (of a conversation: what the person says next), how long an answer, and the pause before it."""

    prompt: Prompt
    output_tokens: int
    think_s: float = 0.0


# A conversation; a request that stands alone is one of one turn.
Conversation = tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class Live:
    """A load point under way. `sample` are records decoded so far, not all that have ended."""

    done: int
    total: int
    elapsed_s: float
    sample: Sequence[RequestRecord]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A finished load point: its records in the order of their starts, the instant it began (CLOCK_MONOTONIC), and what the client cost."""

    records: list[RequestRecord]
    start_ns: int
    client: ClientReport


def nonce_of(*parts: object) -> int:
    """A number that stands for `parts`: what makes the prompts of one load point unlike those of any other."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


def in_order(records: Iterable[RequestRecord]) -> list[RequestRecord]:
    """In the order of their starts, from however many processes they come: what is made of them depends on nothing else."""
    return sorted(records, key=lambda record: (record.start_ns, record.index, record.turn))


def single(prompts: Sequence[Prompt], output_tokens: int) -> list[Conversation]:
    """Requests that stand alone, all of one output length."""
    return [(Ask(prompt, output_tokens),) for prompt in prompts]


@dataclass(slots=True)
class LoadSession:
    """A server, the model asked of it, and what each request carries beyond the standard.

    `should_stop` is asked 20 times a second. With `fixed_length` an answer shorter than asked is a failure.
    """

    endpoint: Endpoint
    model: str
    timeout_s: float
    api: ApiFormat = COMPLETIONS
    body_fields: Mapping[str, object] = field(default_factory=dict)
    should_stop: Callable[[], bool] = lambda: False
    fixed_length: bool = True
    count_tokens: TokenCounter | None = None

    def put(
        self,
        conversations: Sequence[Conversation],
        arrivals: Arrivals,
        *,
        duration_s: float | None = None,
        processes: int | None = None,
        on_live: Callable[[Live], None] | None = None,
        enough: Callable[[Sequence[RequestRecord]], bool] | None = None,
    ) -> LoadResult:
        """Make the requests as `arrivals` say. `enough`, asked now and then, ends the load point early; what is under way is finished.

        Raises:
            StoppedError: `should_stop` said so.
            ApiFormatError: the API cannot be asked this.
            EndpointError, LoadProcessError: the load processes could not do their work.
        """
        closed = isinstance(arrivals, ClosedLoop)
        longest = max(ask.output_tokens for conversation in conversations for ask in conversation)
        plan = LoadPlan(
            chains=[self._chain(conversation) for conversation in conversations],
            path=self.api.path,
            timeout_s=self.timeout_s,
            streams_start_s=arrivals.streams_start_s() if isinstance(arrivals, ClosedLoop) else None,
            due_s=None if isinstance(arrivals, ClosedLoop) else arrivals.due_s,
            duration_s=duration_s,
            max_response_bytes=max(MIN_RESPONSE_BYTES, RESPONSE_BYTES_PER_TOKEN * longest),
        )
        if processes is None:
            processes = default_processes(arrivals.concurrency if isinstance(arrivals, ClosedLoop) else 1)
        records: list[RequestRecord] = []

        def decoded(exchanges: Iterable[Exchange]) -> list[RequestRecord]:
            return [decode(exchange, self._decoding(conversations, exchange.chain, exchange.turn, closed)) for exchange in exchanges]

        def follow(stopped: Callable[[], bool]) -> None:
            finishing = False
            while not run.wait(POLL_S):
                if self.should_stop() or stopped():
                    raise StoppedError
                records.extend(decoded(itertools.islice(run.new_exchanges(), None if enough is not None else LIVE_DECODES_PER_POLL)))
                if on_live is not None:
                    on_live(Live(run.requests_done, plan.requests, (perf_counter_ns() - start_ns) / 1e9, records))
                if enough is not None and not finishing and enough(records):
                    finishing = True
                    run.finish()

        with LoadRun(self.endpoint, plan, processes) as run:
            start_ns = run.start()
            with_idle_priority(follow)
            records += decoded(run.new_exchanges())
            client = run.report()
        if on_live is not None:
            on_live(Live(len(records), len(records), (perf_counter_ns() - start_ns) / 1e9, records))
        return LoadResult(in_order(records), start_ns, client)

    def calibrated_prompts(self, seed: int, uncalibrated: TextPrompts) -> TextPrompts:
        """Text prompts sized by the server's own count of two probes. Raises CalibrationError and what `put` raises."""
        probes: list[tuple[int, int]] = []
        for words in CALIBRATION_WORDS:
            record = self.probe(uncalibrated.make([words], seed, nonce_of("calibration", words))[0])
            if record.input_tokens is None:
                raise CalibrationError(NO_USAGE, record.failure)
            probes.append((words, record.input_tokens))
        return uncalibrated.calibrated(probes)

    def probe(self, prompt: Prompt) -> RequestRecord:
        """One small request, to see whether the server answers. Raises CalibrationError and what `put` raises."""
        [record] = self.put([(Ask(prompt, 1),)], ClosedLoop(1)).records
        # a single token may well carry no text: that it was counted is all that is needed here
        if record.failure not in {None, "empty_output", "early_stop"}:
            raise CalibrationError(record.detail, record.failure)
        return record

    def _chain(self, conversation: Conversation) -> Chain:
        prompts = [ask.prompt for ask in conversation]
        return tuple(
            Turn(self.api.pieces(self.model, prompts[: turn + 1], ask.output_tokens, self.body_fields), ask.think_s)
            for turn, ask in enumerate(conversation)
        )

    def _decoding(self, conversations: Sequence[Conversation], index: int, turn: int, closed: bool) -> Decoding:
        ask = conversations[index][turn]
        scheduled = not closed or (turn > 0 and ask.think_s > 0)
        return Decoding(scheduled, ask.output_tokens if self.fixed_length else None, self.count_tokens)
