"""What this package raises, to those who call its API.

Into a model's call only a limiter raises, which the user has put there.

```
OtelInferenceError
├── ConfigError             an option has a value that means nothing
├── EngineUnavailableError  an engine was asked for by name and is not installed
├── KnobError               a knob cannot be read or set as described
└── OverloadedError         a limiter that the user switched on turned a call away
```
"""

from __future__ import annotations


class OtelInferenceError(Exception):
    """Base of every error of this package."""


class ConfigError(OtelInferenceError, ValueError):
    """An option has a value that means nothing; the message says what was expected."""


class EngineUnavailableError(OtelInferenceError, ImportError):
    """An engine was asked for by name, but its library is not installed."""


class KnobError(OtelInferenceError, ValueError):
    """A knob's bounds, getter or setter do not work as described."""


class OverloadedError(OtelInferenceError):
    """A limiter turned a call away: more is asked than can be done in time. HTTP says it as 503.

    Args:
        model: The model called.
        retry_after_s: Seconds after which another try has a chance.
    """

    def __init__(self, model: str, retry_after_s: float) -> None:
        super().__init__(f"{model} is overloaded; try again in {retry_after_s:.3g} s")
        self.model = model
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[OverloadedError], tuple[str, float]]:
        """Pickle as what it was made from; worker processes send exceptions."""
        return type(self), (self.model, self.retry_after_s)
