"""The Grafana dashboards as code: writes `dashboards/*.json`, which are committed.

    python collector-config/grafana/generate.py            # write
    python collector-config/grafana/generate.py --check    # say which of those there are out of date

Needs `grafana-foundation-sdk`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from model import one_model
from overview import overview
from watching import findings, telemetry

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER: Final = Path(__file__).with_name("dashboards")
PAGES: Final = {"overview": overview, "model": one_model, "findings": findings, "telemetry": telemetry}


def main(arguments: Sequence[str]) -> int:
    """Write all dashboards, or check those that are there; the exit code says whether they are up to date."""
    checks = "--check" in arguments
    stale = []
    for name, page in PAGES.items():
        path, text = FOLDER / f"{name}.json", JSONEncoder(sort_keys=True, indent=2).encode(page().build()) + "\n"
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if not checks:
                path.write_text(text)
    sys.stderr.write(f"{'out of date' if checks else 'written'}: {', '.join(stale) or 'none'}\n")
    return 1 if stale and checks else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
