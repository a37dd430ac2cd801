"""What the models stage is told by the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    """Where models come from and where they go.

    `local_download_limit_bytes` is how much of one model is fetched for the local engine; of larger models Dyno keeps the facts only.
    """

    state_dir: Path
    hub_endpoint: str
    allowed_licences: tuple[str, ...]
    local_download_limit_bytes: int
    hub_token: str | None = field(default=None, repr=False)
