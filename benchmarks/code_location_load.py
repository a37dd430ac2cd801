"""How long the code location takes to load, beside what importing Dagster alone takes: `.venv/bin/python benchmarks/code_location_load.py`.

Each is a new process, alternating, on a prepared state folder (dbt has read its project). Prints one JSON document.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 7


def seconds(module: str, environment: dict[str, str]) -> float:
    """Wall time of a process that imports one module."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, env=environment, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as state_dir:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DYNO_STATE_DIR": state_dir}
        seconds("orchestration.definitions", environment)  # dbt reads its project once, bytecode is written
        rounds = [(seconds("dagster", environment), seconds("orchestration.definitions", environment)) for _ in range(ROUNDS)]
    dagster_s, location_s = (sorted(times) for times in zip(*rounds, strict=True))
    document = {
        "rounds": ROUNDS,
        "dagster_import_s": spread(dagster_s),
        "code_location_s": spread(location_s),
        "ratio_median": round(statistics.median(location / dagster for dagster, location in rounds), 2),
    }
    print(json.dumps(document, indent=2))


def spread(ordered: list[float]) -> dict[str, float]:
    """Least, median and most of sorted times."""
    return {"least": round(ordered[0], 2), "median": round(statistics.median(ordered), 2), "most": round(ordered[-1], 2)}


if __name__ == "__main__":
    main()
