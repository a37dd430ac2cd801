"""Puts a model's weights into the cache volume of a cluster: `python -m assets.models.fetch_weights REPOSITORY --into FOLDER`.

Pods that need the same model version take turns; what a killed one has fetched is kept, and a folder that is complete is left alone.
The hub's token comes by HF_TOKEN, a mirror by HF_ENDPOINT. What went wrong is the one line on standard error, also in the container's
termination message.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from assets.models.errors import InvalidModelError, ModelsError
from assets.models.folders import locked, writing
from assets.models.hub import Hub, HubModel

COMPLETE_NAME = ".complete"
HUB = "https://huggingface.co"
# What engines read. Other formats of the same weights are left out, and so are Meta's and Mistral's own layouts of them.
SUFFIXES = (".safetensors", ".json", ".model", ".txt", ".jinja", ".py")
OTHER_LAYOUTS = ("original/", "consolidated")
TERMINATION_LOG = Path("/dev/termination-log")


def fetch_weights(hub: Hub, repository: str, revision: str | None, into: Path) -> bool:
    """Fetch a repository's safetensors weights, and what lies beside them, into a folder; False when they are there already.

    Raises:
        ModelsError: the hub does not have them, or not for this token, or cannot be reached; or the folder cannot be written.
    """
    with writing(into), locked(into):
        if (into / COMPLETE_NAME).exists():
            return False
        model = hub.model(repository, revision)
        for name in _names(model):
            hub.download_checked(model, name, into)
        (into / COMPLETE_NAME).write_text(f"{repository} {model.revision}\n", encoding="utf-8")
    return True


def _names(model: HubModel) -> list[str]:
    """Small files first: a model that nobody may read fails before its weights are fetched."""
    wanted = [file.name for file in model.files if file.name.endswith(SUFFIXES) and not file.name.startswith(OTHER_LAYOUTS)]
    if not any(name.endswith(".safetensors") for name in wanted):
        raise InvalidModelError(f"{model.hub_id} has no safetensors weights")
    return sorted(wanted, key=lambda name: (name.endswith(".safetensors"), name))


def main() -> int:
    """Fetch what the arguments name; 0, or 1 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m assets.models.fetch_weights", description=__doc__)
    parser.add_argument("repository", help="organisation/name on the hub")
    parser.add_argument("--revision", help="commit, tag or branch; the newest without it")
    parser.add_argument("--into", type=Path, required=True, help="folder of this model version on the cache volume")
    options = parser.parse_args()
    hub = Hub(os.environ.get("HF_ENDPOINT") or HUB, os.environ.get("HF_TOKEN") or None)
    try:
        fetched = fetch_weights(hub, options.repository, options.revision, options.into)
    except ModelsError as error:
        print(error, file=sys.stderr)
        if TERMINATION_LOG.exists():
            TERMINATION_LOG.write_text(str(error), encoding="utf-8")
        return 1
    print(f"{options.repository} is in {options.into}" + ("" if fetched else " already"), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
