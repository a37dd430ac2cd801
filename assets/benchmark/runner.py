"""One batch from launch to last load point: starts the engine once, warms it up, measures, stores each load point as it ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from assets.benchmark.checkpoint import CheckpointStore, PartialLoadPoint
from assets.benchmark.engines.attached import AttachedEngine, RunningEngine
from assets.benchmark.engines.environments import environment_of
from assets.benchmark.engines.process import EngineProcess, free_port
from assets.benchmark.engines.protocol import EngineDriver, EngineError, Launch, PortTakenError
from assets.benchmark.engines.registry import driver_for, metrics_paths
from assets.benchmark.job import Protocol
from assets.benchmark.job_file import JobError, Plan, PlannedLoadPoint
from assets.benchmark.load.arrivals import ClosedLoop
from assets.benchmark.load.calibration import Calibration, calibrate
from assets.benchmark.load.endpoint import Endpoint
from assets.benchmark.load.prompts import ModelTokenizer, PromptSource, TextPrompts, TokenIdPrompts
from assets.benchmark.load.server_counters import GaugeWatch, read_counters
from assets.benchmark.load.session import CalibrationError, Live, LoadSession, StoppedError, nonce_of, single
from assets.benchmark.load.statistics import Asked, load_statistics
from assets.benchmark.load.stopping import StoppingRule
from assets.benchmark.load.truth_checks import flags_of
from assets.benchmark.measurement import build_measurement, client_facts, engine_facts, evidence_lines
from assets.benchmark.progress import Reporter
from assets.benchmark.telemetry import GpuReader, Sampler

PORT_ATTEMPTS = 3
PROBE_TOKENS = 16


class LoadPointError(Exception):
    """Not one request of a load point completed: there is nothing to store. `kind` is the commonest failure."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch: load points measured now, and those that failed."""

    measured: int
    failed: int


@dataclass(frozen=True, slots=True)
class _Rig:
    """What all load points of a batch are measured with."""

    engine: RunningEngine
    session: LoadSession
    prompts: PromptSource
    gpus: GpuReader
    calibration: Calibration


def request_bounds(protocol: Protocol, concurrency: int) -> tuple[int, int]:
    """At least and at most how many requests a load point gets."""
    by_streams = protocol.requests_per_stream * concurrency
    return max(protocol.min_requests, by_streams), max(protocol.max_requests, by_streams)


class Runner:
    """Measures the load points of a plan that are not finished yet.

    `should_stop` is asked a few times a second; `work_dir` gets the engine's log.
    """

    def __init__(self, plan: Plan, store: CheckpointStore, reporter: Reporter, should_stop: Callable[[], bool], work_dir: Path) -> None:
        self._plan = plan
        self._work_dir = work_dir
        self._store = store
        self._reporter = reporter
        self._should_stop = should_stop

    def run(self) -> Outcome:
        """Measure what remains.

        Raises:
            EngineError: the engine did not start, or ended by itself.
            CheckpointError: the checkpoint folder cannot be used.
            JobError, TokenizerError: something that the job names cannot be used.
            LoadProcessError, NoAnswerError: the load generator failed.
            StoppedError: `should_stop` said so; the load point under way is marked partial, the finished ones are kept.
        """
        points = self._remaining()
        failed = 0
        if points:
            self._check_job()
            calibration = calibrate(max(point.concurrency for point in points), should_stop=self._should_stop)
            with self._engine() as engine:
                failed = self._measure_all(engine, points, calibration)
        outcome = Outcome(len(points) - failed, failed)
        self._reporter.emit("batch_finished", measured=outcome.measured, failed=outcome.failed)
        return outcome

    def _remaining(self) -> list[PlannedLoadPoint]:
        points = self._plan.load_points
        finished, damaged = self._store.finished(point.config_id for point in points)
        for sentence in damaged:
            self._reporter.emit("note", text=sentence)
        remaining = [point for point in points if point.config_id not in finished]
        self._reporter.emit(
            "batch_started",
            partition_key=self._plan.job.partition_key,
            load_points=len(remaining),
            requests=sum(request_bounds(self._plan.protocol, point.concurrency)[1] for point in remaining),
            finished=len(points) - len(remaining),
        )
        return remaining

    def _check_job(self) -> None:
        job, framework = self._plan.job, self._plan.framework
        driver = driver_for(framework)
        if job.engine_url is not None:
            return  # whoever started the engine has seen to its version and its weights
        if not driver.command(self._launch(port=0)):
            raise JobError(f"engine_url: {framework} is not started by Dyno: say where it is")
        if not Path(job.model_path).exists():
            raise JobError(f"model_path: {job.model_path} is not there: materialize the `model` asset of this model first")
        installed = driver.version(self._environment())
        if installed is not None and installed != self._plan.framework_version:
            raise JobError(
                f"deployment.framework_version: the batch is for {framework} {self._plan.framework_version}, but {installed} is installed: "
                "materialize test_matrix again for the installed version"
            )

    def _environment(self) -> Path | None:
        return environment_of(self._plan.job.engine_environments, self._plan.framework)

    def _launch(self, port: int) -> Launch:
        job = self._plan.job
        return Launch(
            model=job.model_path,
            port=port,
            parallel=job.launch_parallel,
            tokens_per_request=job.launch_tokens_per_request,
            tensor_parallel=self._plan.tensor_parallel,
            flags=self._plan.flags,
            quantization=self._plan.quantization,
            served_model_name=job.served_model_name,
            environment=self._environment(),
            scratch_dir=str(self._work_dir),
        )

    @contextmanager
    def _engine(self) -> Iterator[RunningEngine]:
        """The engine, ready. A port that somebody else takes between choosing and binding is chosen anew."""
        job, driver = self._plan.job, driver_for(self._plan.framework)
        if job.engine_url is not None:
            endpoint = Endpoint.parse(job.engine_url)
            launch = self._launch(endpoint.port)
            with AttachedEngine(driver, launch, job.engine_url, job.engine_start_timeout_s, self._while_starting) as attached:
                yield attached
            return
        for attempt in range(1, PORT_ATTEMPTS + 1):
            engine = EngineProcess(
                driver,
                self._launch(free_port()),
                self._work_dir / "engine.log",
                job.engine_start_timeout_s,
                self._while_starting,
            )
            try:
                with engine:
                    self._reporter.emit("engine_started", framework=self._plan.framework, start_s=_rounded(engine.start_s))
                    yield engine
                    return
            except PortTakenError:
                if attempt == PORT_ATTEMPTS:
                    raise

    def _while_starting(self, waited_s: float) -> None:
        if self._should_stop():
            raise StoppedError
        self._reporter.engine_starting(self._plan.framework, waited_s)

    def _measure_all(self, engine: RunningEngine, points: list[PlannedLoadPoint], calibration: Calibration) -> int:
        """Warm up, then measure each load point; returns how many failed altogether."""
        session = LoadSession(
            endpoint=Endpoint.parse(engine.base_url),
            model=engine.driver.request_model(engine.launch),
            timeout_s=self._plan.protocol.request_timeout_s,
            api=engine.driver.api,
            body_fields=engine.driver.body_fields(),
            should_stop=self._should_stop,
            fixed_length=engine.driver.fixes_output_length,
        )
        prompts = self._warm_up(engine, session, points[0])
        failed = 0
        with GpuReader(enabled=self._plan.hardware_id != "cpu") as gpus:
            rig = _Rig(engine, session, prompts, gpus, calibration)
            for point in points:
                try:
                    self._measure_one(rig, point)
                except LoadPointError as error:
                    failed += 1
                    self._reporter.emit("load_point_failed", config_id=point.config_id, kind=error.kind, detail=str(error))
        return failed

    def _prompts(self, engine: RunningEngine, session: LoadSession) -> PromptSource:
        """What makes prompts that the engine takes. A server that refuses the fields of a fixed length is measured without them."""
        path = self._plan.job.tokenizer_path
        tokenizer = None if path is None else ModelTokenizer.from_file(Path(path))
        session.count_tokens = None if tokenizer is None else tokenizer.count
        try:
            try:
                return self._tried_prompts(engine.driver, session, tokenizer)
            except CalibrationError as error:
                if error.failure != "http_4xx" or not session.body_fields:
                    raise
                refused = ", ".join(session.body_fields)
                session.body_fields, session.fixed_length = {}, False
                prompts = self._tried_prompts(engine.driver, session, tokenizer)
                text = f"{engine.driver.name} does not take {refused} ({error}): answers may end early, so their lengths differ"
                self._reporter.emit("note", text=text)
                return prompts
        except CalibrationError as error:
            engine.check_alive()
            raise EngineError(f"{engine.driver.name}: {error}") from error

    def _tried_prompts(self, driver: EngineDriver, session: LoadSession, tokenizer: ModelTokenizer | None) -> PromptSource:
        seed = self._plan.job.seed
        if tokenizer is not None and driver.takes_token_ids:
            ids = TokenIdPrompts(tokenizer.ordinary_ids)
            session.probe(ids.make([PROBE_TOKENS], seed, nonce_of("probe", time.time_ns()))[0])
            return ids
        return session.calibrated_prompts(seed, TextPrompts() if tokenizer is None else TextPrompts(tokenizer.words()))

    def _warm_up(self, engine: RunningEngine, session: LoadSession, point: PlannedLoadPoint) -> PromptSource:
        """Send the protocol's warm-up requests, which measure nothing; returns what makes the prompts."""
        job, count = self._plan.job, self._plan.protocol.warmup_requests
        prompts = self._prompts(engine, session)
        warm_up = prompts.make([point.workload.input_tokens] * count, job.seed, nonce_of("warm-up", time.time_ns()))
        records = session.put(single(warm_up, point.workload.output_tokens), ClosedLoop(min(count, point.concurrency))).records
        if all(record.failure is not None for record in records):
            engine.check_alive()
            raise EngineError(f"all {count} warm-up requests failed, the first with {records[0].failure}: {records[0].detail}")
        self._reporter.emit("warmed_up", requests=count)
        return prompts

    def _measure_one(self, rig: _Rig, point: PlannedLoadPoint) -> None:
        engine, session, prompts = rig.engine, rig.session, rig.prompts
        job, workload, config_id = self._plan.job, point.workload, point.config_id
        least, count = request_bounds(self._plan.protocol, point.concurrency)
        about = {"config_id": config_id, "workload": workload.name, "concurrency": point.concurrency}
        self._reporter.emit("load_point_started", **about, requests=count)
        nonce = nonce_of(config_id, job.protocol, job.repeat, time.time_ns())
        batch = single(prompts.make([workload.input_tokens] * count, job.seed, nonce), workload.output_tokens)
        rule = StoppingRule(least, self._plan.protocol.precision, point.concurrency) if least < count else None

        done = 0
        paths = metrics_paths(engine.driver)
        gauges = GaugeWatch(session.endpoint, engine.driver.metrics, paths)

        def on_live(live: Live) -> None:
            nonlocal done
            done = live.done
            gauges.look()
            self._reporter.requests_done(config_id, live.done, count)

        before = read_counters(session.endpoint, engine.driver.metrics, paths)
        started_at = datetime.now(UTC)
        try:
            with Sampler(engine.pid, rig.gpus) as sampler:
                result = session.put(batch, ClosedLoop(point.concurrency), on_live=on_live, enough=rule)
        except StoppedError:
            self._mark_partial(point, done, count)
            raise
        counters = read_counters(session.endpoint, engine.driver.metrics, paths).since(before)
        records = result.records
        engine.check_alive()
        failures = Counter(record.failure for record in records if record.failure is not None)
        if failures.total() == len(records):
            kind = failures.most_common(1)[0][0]
            raise LoadPointError(kind, f"all {len(records)} requests failed, the first: {records[0].detail}")

        asked = Asked(point.concurrency, workload.input_tokens, workload.output_tokens if session.fixed_length else None)
        statistics = load_statistics(records, asked, job.seed)
        client = client_facts(rig.calibration, result, statistics)
        measurement = build_measurement(
            self._plan,
            point,
            statistics,
            sampler,
            started_at=started_at,
            engine={**engine_facts(engine, self._plan), "counters": counters.known(), "gauges_max": gauges.maxima},
            client={
                **client,
                "seed": job.seed,
                "nonce": nonce,
                "prompts": "token ids" if isinstance(prompts, TokenIdPrompts) else "text",
                "fixed_output_length": session.fixed_length,
            },
            quality_flags=flags_of(statistics, records, counters, limited=bool(client["limited"])),
        )
        counts = self._store.save(measurement, evidence_lines(records, result.start_ns, statistics.window))
        if counts.measurement_id != measurement.measurement_id:
            self._reporter.emit("note", text=f"another worker was first with {config_id}: its measurement counts, this one is discarded")
        self._reporter.emit(
            "load_point_finished",
            **about,
            ttft_p50_ms=_rounded(statistics.ttft_ms.p50),
            ttft_p90_ms=_rounded(statistics.ttft_ms.p90),
            tpot_p50_ms=_rounded(statistics.tpot_ms.p50),
            output_tokens_per_s=_rounded(statistics.output_tokens_per_s),
            failed=statistics.requests_failed,
        )

    def _mark_partial(self, point: PlannedLoadPoint, requests_done: int, requests: int) -> None:
        job = self._plan.job
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._store.mark_partial(
            PartialLoadPoint(
                point.config_id, job.partition_key, job.protocol, job.repeat, requests_done, requests, "the worker was asked to stop", now
            )
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
