"""The sinks that a configuration asks for."""

from __future__ import annotations

from dataclasses import replace
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, cast

from otel_inference.alerting.alertmanager import Alertmanager
from otel_inference.alerting.sink import AlertSink, FunctionSink
from otel_inference.alerting.webhook import Webhook
from otel_inference.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_inference.alerting.service import Service
    from otel_inference.finding import FindingChange


def sinks_from(
    webhook: str | None,
    alertmanager: str | None,
    extra: Iterable[AlertSink | Callable[[FindingChange], object]] = (),
    *,
    service: Service = None,
) -> tuple[AlertSink, ...]:
    """The sinks named by the environment, then those given in code.

    Args:
        webhook: Address of a webhook.
        alertmanager: Address of an Alertmanager.
        extra: Sinks, and functions to be called with each change.
        service: For those that were not told the service's name.

    Raises:
        ConfigError: If an address cannot be used, something is neither a sink nor a function, or a sink
            wants to be told again more often than once a second.
    """
    given: list[Any] = list(extra)
    if alertmanager is not None:
        given.insert(0, Alertmanager(alertmanager))
    if webhook is not None:
        given.insert(0, Webhook(webhook))
    return tuple(_sink(each, service) for each in given)


def _sink(given: object, service: Service) -> AlertSink:
    if isinstance(given, (Webhook, Alertmanager)):
        return given if given.service is not None else replace(given, service=service)
    if not isinstance(given, type):
        send = getattr(given, "send", None)
        if callable(send) and isinstance(getattr(given, "name", None), str) and not _is_coroutine(send):
            _check_refresh(given)
            return cast("AlertSink", given)
        if callable(given) and not _is_coroutine(given):
            return FunctionSink(given)
    # Not its `repr`, which may hold an address.
    shown = getattr(given, "__name__", None) or type(given).__name__
    msg = f"an alert sink is {shown}; expected a function of one argument (no coroutine), or an object with `name` and `send`"
    raise ConfigError(msg)


def _is_coroutine(function: Callable[..., object]) -> bool:
    """Whether a call of it only makes a coroutine, which nobody would await."""
    return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)


def _check_refresh(sink: object) -> None:
    refresh_s = getattr(sink, "refresh_s", None)
    if refresh_s is None or (isinstance(refresh_s, (int, float)) and refresh_s >= 1):
        return
    msg = f"refresh_s of the alert sink {sink.name} is {refresh_s!r}; expected at least 1 second, or None"  # type: ignore[attr-defined]
    raise ConfigError(msg)
