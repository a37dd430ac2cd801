"""`python -m assets.benchmark --job job.json`: see assets.benchmark.worker."""

from __future__ import annotations

import sys

from assets.benchmark.worker import main

if __name__ == "__main__":
    sys.exit(main())
