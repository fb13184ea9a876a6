"""How many calls a machine can work on at once, before any was seen."""

from __future__ import annotations

import sys

from otel_inference.resources import processors


def suggested() -> int | None:
    """Usable cores over torch's threads per call; `None` where it cannot be told without knowing the calls' engine."""
    torch = sys.modules.get("torch")
    return None if torch is None else max(1, len(processors.allowed(())) // int(torch.get_num_threads()))
