"""Calls written as OpenTelemetry spans and metrics: the only package that uses its API."""
