"""What this package raises, to those who call its API and never into a model's call.

```
OtelInferenceError
├── ConfigError             an option has a value that means nothing
└── EngineUnavailableError  an engine was asked for by name and is not installed
```
"""

from __future__ import annotations


class OtelInferenceError(Exception):
    """Base of every error of this package."""


class ConfigError(OtelInferenceError, ValueError):
    """An option has a value that means nothing; the message says what was expected."""


class EngineUnavailableError(OtelInferenceError, ImportError):
    """An engine was asked for by name, but its library is not installed."""
