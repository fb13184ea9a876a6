"""An embedding server as anybody would write it, with a limiter in front of its model.

Configured by the environment: `MODEL_FOLDER` (a sentence-transformers folder), `DEADLINE_S`, `WINDOW_S` (of health), and
`MAINTAIN=false` to leave limiter and maintenance out. Findings are appended to the file `FINDINGS`,
what maintenance did to the file `JOURNAL`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

import otel_inference
from otel_inference.maintenance.asgi import OverloadMiddleware

if TYPE_CHECKING:
    from otel_inference.maintenance.action import MaintenanceEvent

MODEL = "all-MiniLM-L6-v2"
DEADLINE_S = float(os.environ["DEADLINE_S"])
MAINTAIN = os.environ.get("MAINTAIN", "true") == "true"
FINDINGS = Path(os.environ["FINDINGS"])


def note(change: otel_inference.FindingChange) -> None:
    """Append a finding that opened or closed."""
    finding = change.finding
    line = {"at": change.at.timestamp(), "event": change.event, "finding": finding.key, "advice": finding.advice}
    with FINDINGS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@otel_inference.on("bottleneck", cooldown=10)
@otel_inference.on("saturation", cooldown=10)
def ask_for_replica(event: MaintenanceEvent) -> None:
    """Where an autoscaler would be told; here nobody is, and the verdict says that it did not help."""


torch.set_num_threads(1)
otel_inference.instrument(
    config=otel_inference.Config(
        window_s=float(os.environ["WINDOW_S"]),
        slo_latency=f"0.99<{DEADLINE_S}s",
        maintenance="act" if MAINTAIN else "off",
        journal=os.environ["JOURNAL"],
        alert_sinks=(note,),
    )
)
model = SentenceTransformer(os.environ["MODEL_FOLDER"], device="cpu")
otel_inference.name_model(model, MODEL)
if MAINTAIN:
    otel_inference.limit(MODEL, otel_inference.AdaptiveLimiter(deadline_s=DEADLINE_S))

app = FastAPI()
app.add_middleware(OverloadMiddleware, models={"/embed": MODEL})


class Texts(BaseModel):
    """What is to be embedded."""

    texts: list[str]


@app.post("/embed")
def embed(body: Texts) -> dict[str, int]:
    """Embed the texts; FastAPI runs this on one of its threads."""
    return {"dimensions": model.encode(body.texts).shape[1]}


@app.get("/figures")
async def figures() -> dict[str, float]:
    """What the process knows of itself; not on one of the threads, which may all be taken."""
    health = otel_inference.health(MODEL)
    used = health.utilization.get("concurrency", 0.0) if health else 0.0
    process = psutil.Process()
    return {
        "rss_bytes": process.memory_info().rss,
        "cpu_s": sum(process.cpu_times()[:2]),
        "concurrency_utilization": used,
    }
