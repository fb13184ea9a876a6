"""Telling people and other systems of findings, without ever holding up or breaking anything."""

from __future__ import annotations

from otel_inference.alerting.alertmanager import Alertmanager
from otel_inference.alerting.sink import AlertSink
from otel_inference.alerting.webhook import Webhook

__all__ = ["AlertSink", "Alertmanager", "Webhook"]
