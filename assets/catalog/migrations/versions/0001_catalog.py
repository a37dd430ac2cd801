"""The catalog's first tables.

Revision: 0001. `assets/catalog/tables.py` documents every table; a test compares the two. The time series become hypertables
where TimescaleDB is there, and native partitions by month otherwise (`assets/catalog/timeseries.py`).
"""

from __future__ import annotations

from alembic import op

from assets.catalog.timeseries import timescaledb_usable

revision: str = "0001"
down_revision: str | None = None
branch_labels: None = None
depends_on: None = None

KINDS = "kind IN ('measured', 'published', 'estimated', 'simulated')"

REFERENCE = """
CREATE TABLE catalog.models (
    model_id text NOT NULL,
    name text NOT NULL,
    hub_id text,
    licence text,
    architecture text NOT NULL,
    params bigint NOT NULL,
    active_params bigint NOT NULL,
    max_context_tokens bigint NOT NULL,
    facts jsonb NOT NULL,
    source text NOT NULL,
    registered_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT pk_models PRIMARY KEY (model_id)
);
CREATE TABLE catalog.model_versions (
    model_version_id text NOT NULL,
    model_id text NOT NULL,
    quantization text NOT NULL,
    revision text NOT NULL,
    weights_bytes bigint,
    files jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    last_registered_at timestamptz,
    CONSTRAINT pk_model_versions PRIMARY KEY (model_version_id),
    CONSTRAINT fk_model_versions_model_id FOREIGN KEY (model_id) REFERENCES catalog.models (model_id)
);
CREATE TABLE catalog.hardware_configs (
    hardware_id text NOT NULL,
    gpu_type text NOT NULL,
    gpu_count bigint NOT NULL,
    memory_bytes_per_device bigint NOT NULL,
    memory_bandwidth_bytes_per_s double precision NOT NULL,
    compute_capability double precision,
    source text NOT NULL,
    CONSTRAINT pk_hardware_configs PRIMARY KEY (hardware_id)
);
CREATE TABLE catalog.hardware_prices (
    hardware_id text NOT NULL,
    provider text NOT NULL,
    region text NOT NULL,
    instance text NOT NULL,
    as_of timestamptz NOT NULL,
    on_demand_usd_per_hour double precision,
    spot_usd_per_hour double precision,
    note text NOT NULL,
    source text NOT NULL,
    CONSTRAINT pk_hardware_prices PRIMARY KEY (hardware_id, provider, region, instance, as_of),
    CONSTRAINT fk_hardware_prices_hardware_id FOREIGN KEY (hardware_id) REFERENCES catalog.hardware_configs (hardware_id)
);
CREATE TABLE catalog.inference_frameworks (
    framework text NOT NULL,
    version text NOT NULL,
    quantizations jsonb NOT NULL,
    source text NOT NULL,
    CONSTRAINT pk_inference_frameworks PRIMARY KEY (framework, version)
);
CREATE TABLE catalog.use_case_taxonomy (
    use_case text NOT NULL,
    title text NOT NULL,
    description text NOT NULL,
    workloads jsonb NOT NULL,
    default_rps double precision NOT NULL,
    default_input_tokens bigint NOT NULL,
    default_output_tokens bigint NOT NULL,
    sla_ttft_p90_ms double precision NOT NULL,
    sla_tpot_p90_ms double precision NOT NULL,
    sla_source text NOT NULL,
    CONSTRAINT pk_use_case_taxonomy PRIMARY KEY (use_case)
);
"""

MATRIX = """
CREATE TABLE catalog.benchmark_configs (
    config_id text NOT NULL,
    deployment_id text NOT NULL,
    model_version_id text NOT NULL,
    hardware_id text NOT NULL,
    framework text NOT NULL,
    framework_version text NOT NULL,
    flags jsonb NOT NULL,
    tensor_parallel bigint NOT NULL,
    partition_key text,
    workload text NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    load_mode text NOT NULL,
    concurrency bigint,
    request_rate_per_s double precision,
    feasible boolean NOT NULL,
    rejection_code text,
    rejection_detail text,
    vram_required_bytes bigint NOT NULL,
    vram_available_bytes bigint NOT NULL,
    vram_quick_estimate_bytes bigint NOT NULL,
    vram_parts jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_benchmark_configs PRIMARY KEY (config_id),
    CONSTRAINT fk_benchmark_configs_model_version_id FOREIGN KEY (model_version_id) REFERENCES catalog.model_versions (model_version_id),
    CONSTRAINT fk_benchmark_configs_hardware_id FOREIGN KEY (hardware_id) REFERENCES catalog.hardware_configs (hardware_id),
    CONSTRAINT ck_benchmark_configs_rejected_with_a_reason CHECK (feasible = (rejection_code IS NULL))
);
CREATE INDEX ix_benchmark_configs_deployment_id ON catalog.benchmark_configs (deployment_id);
CREATE INDEX ix_benchmark_configs_model_version_id ON catalog.benchmark_configs (model_version_id);
CREATE INDEX ix_benchmark_configs_partition_key ON catalog.benchmark_configs (partition_key);
"""

RESULTS = f"""
CREATE TABLE catalog.provenance (
    provenance_id text NOT NULL,
    tool text NOT NULL,
    tool_version text NOT NULL,
    source_uri text NOT NULL,
    file_sha256 text,
    licence text,
    host jsonb NOT NULL,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT pk_provenance PRIMARY KEY (provenance_id)
);
CREATE TABLE catalog.quality_results (
    model_version_id text NOT NULL,
    task text NOT NULL,
    measured_at timestamptz NOT NULL,
    kind text NOT NULL,
    accuracy double precision NOT NULL,
    accuracy_stderr double precision,
    samples bigint NOT NULL,
    provenance_id text NOT NULL,
    CONSTRAINT pk_quality_results PRIMARY KEY (model_version_id, task, measured_at),
    CONSTRAINT fk_quality_results_model_version_id FOREIGN KEY (model_version_id) REFERENCES catalog.model_versions (model_version_id),
    CONSTRAINT fk_quality_results_provenance_id FOREIGN KEY (provenance_id) REFERENCES catalog.provenance (provenance_id),
    CONSTRAINT ck_quality_results_kind CHECK ({KINDS}),
    CONSTRAINT ck_quality_results_accuracy_is_a_share CHECK (accuracy BETWEEN 0 AND 1)
);
CREATE TABLE catalog.job_checkpoints (
    config_id text NOT NULL,
    protocol text NOT NULL,
    repeat bigint NOT NULL,
    measurement_id uuid NOT NULL,
    partition_key text NOT NULL,
    run_id text,
    completed_at timestamptz NOT NULL,
    CONSTRAINT pk_job_checkpoints PRIMARY KEY (config_id, protocol, repeat),
    CONSTRAINT uq_job_checkpoints_measurement_id UNIQUE (measurement_id),
    CONSTRAINT fk_job_checkpoints_config_id FOREIGN KEY (config_id) REFERENCES catalog.benchmark_configs (config_id)
);
CREATE INDEX ix_job_checkpoints_partition_key ON catalog.job_checkpoints (partition_key);
CREATE TABLE catalog.job_failures (
    failure_id uuid NOT NULL,
    partition_key text NOT NULL,
    config_id text,
    run_id text,
    attempt bigint NOT NULL,
    failure_kind text NOT NULL,
    detail text NOT NULL,
    needs_review boolean NOT NULL,
    occurred_at timestamptz NOT NULL,
    CONSTRAINT pk_job_failures PRIMARY KEY (failure_id)
);
CREATE INDEX ix_job_failures_partition_key ON catalog.job_failures (partition_key);
CREATE TABLE catalog.catalog_state (
    singleton boolean NOT NULL,
    version bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT pk_catalog_state PRIMARY KEY (singleton),
    CONSTRAINT ck_catalog_state_one_row CHECK (singleton)
);
"""

FIRST_VERSION = "INSERT INTO catalog.catalog_state (singleton, version, updated_at) VALUES (true, 1, now())"

PERCENTILES = ",\n    ".join(
    f"{metric}_{statistic}_ms double precision"
    for metric in ("ttft", "tpot", "itl", "e2e")
    for statistic in ("mean", "p50", "p90", "p95", "p99")
)

BENCHMARK_RESULTS = f"""
CREATE TABLE catalog.benchmark_results (
    measurement_id uuid NOT NULL,
    measured_at timestamptz NOT NULL,
    config_id text NOT NULL,
    kind text NOT NULL,
    protocol text NOT NULL,
    repeat bigint NOT NULL,
    provenance_id text NOT NULL,
    duration_s double precision NOT NULL,
    requests_sent bigint NOT NULL,
    requests_completed bigint NOT NULL,
    requests_failed bigint NOT NULL,
    failures jsonb NOT NULL,
    {PERCENTILES},
    requests_per_s double precision NOT NULL,
    output_tokens_per_s double precision NOT NULL,
    total_tokens_per_s double precision NOT NULL,
    input_tokens_mean double precision,
    output_tokens_mean double precision,
    concurrency_mean double precision NOT NULL,
    intervals jsonb NOT NULL,
    cpu_utilization_pct double precision,
    engine_memory_bytes_max bigint,
    gpu_utilization_pct double precision,
    gpu_memory_bytes_max bigint,
    engine jsonb NOT NULL,
    quality_flags jsonb NOT NULL,
    CONSTRAINT pk_benchmark_results PRIMARY KEY (measurement_id, measured_at),
    CONSTRAINT fk_benchmark_results_config_id FOREIGN KEY (config_id) REFERENCES catalog.benchmark_configs (config_id),
    CONSTRAINT fk_benchmark_results_provenance_id FOREIGN KEY (provenance_id) REFERENCES catalog.provenance (provenance_id),
    CONSTRAINT ck_benchmark_results_kind CHECK ({KINDS}),
    CONSTRAINT ck_benchmark_results_requests_add_up CHECK (requests_sent = requests_completed + requests_failed)
)"""

GPU_TELEMETRY = """
CREATE TABLE catalog.gpu_telemetry (
    measurement_id uuid NOT NULL,
    device text NOT NULL,
    sampled_at timestamptz NOT NULL,
    utilization_pct double precision,
    memory_bytes bigint,
    power_w double precision,
    CONSTRAINT pk_gpu_telemetry PRIMARY KEY (measurement_id, device, sampled_at)
)"""

NATIVE = f"""
{BENCHMARK_RESULTS} PARTITION BY RANGE (measured_at);
CREATE TABLE catalog.benchmark_results_default PARTITION OF catalog.benchmark_results DEFAULT;
{GPU_TELEMETRY} PARTITION BY RANGE (sampled_at);
CREATE TABLE catalog.gpu_telemetry_default PARTITION OF catalog.gpu_telemetry DEFAULT;
"""

HYPERTABLES = f"""
{BENCHMARK_RESULTS};
SELECT create_hypertable(
    'catalog.benchmark_results', 'measured_at', chunk_time_interval => INTERVAL '1 month', create_default_indexes => false
);
{GPU_TELEMETRY};
SELECT create_hypertable(
    'catalog.gpu_telemetry', 'sampled_at', chunk_time_interval => INTERVAL '1 month', create_default_indexes => false
);
"""

# Apache edition lacks compression; a chunk older than the interval is no longer written to
COMPRESSION = """
DO $$ BEGIN
    IF current_setting('timescaledb.license', true) = 'timescale' THEN
        ALTER TABLE catalog.benchmark_results SET (
            timescaledb.compress, timescaledb.compress_segmentby = 'config_id', timescaledb.compress_orderby = 'measured_at'
        );
        ALTER TABLE catalog.gpu_telemetry SET (
            timescaledb.compress, timescaledb.compress_segmentby = 'device', timescaledb.compress_orderby = 'measurement_id, sampled_at'
        );
        PERFORM add_compression_policy('catalog.benchmark_results', INTERVAL '90 days');
        PERFORM add_compression_policy('catalog.gpu_telemetry', INTERVAL '30 days');
    END IF;
END $$
"""

INDEXES = """
CREATE INDEX ix_benchmark_results_config_id_measured_at ON catalog.benchmark_results (config_id, measured_at);
CREATE INDEX ix_benchmark_results_measured_at ON catalog.benchmark_results USING brin (measured_at);
CREATE INDEX ix_gpu_telemetry_sampled_at ON catalog.gpu_telemetry USING brin (sampled_at);
"""


def upgrade() -> None:
    op.execute(REFERENCE)
    op.execute(MATRIX)
    op.execute(RESULTS)
    op.execute(FIRST_VERSION)
    hypertables = timescaledb_usable(op.get_bind())
    if hypertables:
        op.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    op.execute(HYPERTABLES if hypertables else NATIVE)
    op.execute(INDEXES)
    if hypertables:
        op.execute(COMPRESSION)


def downgrade() -> None:
    """Refused: it would drop every measurement. To start over, drop the schema `catalog` by hand."""
    raise NotImplementedError("the first migration has no way back: it would drop every measurement")
