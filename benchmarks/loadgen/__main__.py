"""Dyno's load generator and its peers against one ground-truth server: `.venv/bin/python -m benchmarks.loadgen --help`.

Each client runs alone, one after the other, in rounds, against a fresh server process on this machine (first token 200 +- 100 ms, then 64
tokens 20 +- 5 ms apart), from its command line. The table has the median of the rounds. Peers are installed on first use (15 GB).
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from assets.benchmark.host import host_facts
from assets.benchmark.load.calibration import truth_server
from assets.benchmark.load.probe import get
from assets.benchmark.load.truth_server import Timing
from benchmarks.loadgen.compare import Comparison, compare
from benchmarks.loadgen.peers import OURS, PEERS, Load, Peer, PeerError, install, run, version, write_tokenizer

CONCURRENCIES = (64, 256, 1024)
RATES_PER_S = (50.0, 200.0, 500.0)
WAVES = 4
OPEN_LOOP_S = 6.0
INPUT_TOKENS, OUTPUT_TOKENS = 100, 64
TIMEOUT_S = 120.0
ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Measure, print the table, write it where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loadgen", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; empty for ours alone")
    parser.add_argument("--concurrency", type=int, nargs="*", default=CONCURRENCIES, help="streams of the closed loops")
    parser.add_argument("--rate", type=float, nargs="*", default=RATES_PER_S, help="requests per second of the open loops")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured; the table has the medians")
    parser.add_argument("--environments", type=Path, default=ROOT / ".dyno" / "peers", help="where the peers are installed")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    options = parser.parse_args()
    clients = [OURS, *(PEERS[name] for name in options.peers.split(",") if name)]
    loads = [Load(WAVES * streams, INPUT_TOKENS, OUTPUT_TOKENS, concurrency=streams) for streams in options.concurrency]
    loads += [Load(round(rate * OPEN_LOOP_S), INPUT_TOKENS, OUTPUT_TOKENS, rate_per_s=rate) for rate in options.rate]
    screen = Console(stderr=True)
    comparisons: list[Comparison] = []
    with Progress(console=screen) as bar, tempfile.TemporaryDirectory(prefix="dyno-loadgen-") as scratch:
        task = bar.add_task("installing the peers", total=options.rounds * len(loads) * len(clients))
        environments = {client.name: install(client, options.environments.resolve()) for client in clients}
        write_tokenizer(Path(scratch) / "tokenizer")
        for round_number, load, client in itertools.product(range(options.rounds), loads, clients):
            bar.update(task, description=f"{client.name} at {load.name}")
            try:
                comparisons.append(_measure(load, client, environments[client.name], Path(scratch), round_number))
            except (PeerError, ValueError) as error:
                screen.print(f"{client.name} at {load.name}: {error}", markup=False, soft_wrap=True)
            bar.advance(task)
    versions = {client.name: version(client) for client in clients}
    table = _table(_medians(comparisons), versions, options.rounds)
    print(table)
    if options.markdown is not None:
        options.markdown.write_text(table + "\n", encoding="utf-8")
    if options.json is not None:
        document = {
            "host": host_facts(),
            "versions": versions,
            "comparisons": [asdict(c) for c in comparisons],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0 if comparisons else 1


def _measure(load: Load, peer: Peer, environment: Path, scratch: Path, round_number: int) -> Comparison:
    """One client under one load, against a server of its own. Raises PeerError, ValueError."""
    with truth_server(Timing(seed=round_number)) as endpoint:
        reported, cost = run(peer, environment, f"http://{endpoint.name}", load, scratch)
        truth = json.loads(get(endpoint, "/truth", TIMEOUT_S))["requests"]
    return compare(peer.name, load, reported, truth, cost)


def _medians(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Over the rounds, figure by figure."""
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault((comparison.load, comparison.client), []).append(comparison)
    merged: list[Comparison] = []
    for of_client in groups.values():
        figures = {
            field.name: statistics.median([value for c in of_client if (value := getattr(c, field.name)) is not None])
            for field in fields(Comparison)
            if isinstance(getattr(of_client[0], field.name), (int, float))
        }
        merged.append(replace(of_client[0], **figures))
    return merged


def _table(comparisons: Sequence[Comparison], versions: dict[str, str], rounds: int) -> str:
    """Markdown."""
    ours = {comparison.load: comparison for comparison in comparisons if comparison.client == OURS.name}
    columns = (
        "load", "client", "requests", "TTFT error, steady: mean / p99 of absolute, ms", "with the first wave: mean, ms", "ITL p99 bias, ms",
        "efficiency", "arrived per s", "lag p99, ms", "CPU s", "memory, MB", "p99 error, ratio to ours",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for c in comparisons:
        mine = ours.get(c.load)
        cells = (
            c.load,
            f"{c.client} {versions[c.client]}".strip() + ("" if c.matched_by == "id" else " (matched by time)"),
            str(c.requests),
            f"{c.error_mean_ms:.3f} / {c.error_abs_p99_ms:.3f}",
            f"{c.error_first_wave_mean_ms:.3f}",
            _text(c.itl_p99_bias_ms, 3),
            _text(c.efficiency, 4),
            _text(c.achieved_per_s, 2),
            _text(c.lag_p99_ms, 2),
            f"{c.cpu_s:.1f}",
            f"{c.memory_bytes_max / 2**20:.0f}",
            f"{c.error_abs_p99_ms / mine.error_abs_p99_ms:,.0f}" if mine is not None and mine.error_abs_p99_ms > 0 else "-",
        )
        lines.append(f"| {' | '.join(cells)} |")
    host = host_facts()
    lines += ["", f"Median of {rounds} round{'s' if rounds > 1 else ''}; {host}."]
    return "\n".join(lines)


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
