"""Writes the dbt docs site and serves it: `python -m orchestration.local.docs_site PORT`. Loopback only."""

from __future__ import annotations

import os
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from assets.rankings.dbt import docs
from orchestration.local.ports import HOST


def main(port: int) -> None:
    """Write the site from the database as it is now, then serve it until the process is ended."""
    site = docs(os.environ, Path(os.environ["DYNO_STATE_DIR"]))
    ThreadingHTTPServer((HOST, port), partial(SimpleHTTPRequestHandler, directory=str(site))).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
