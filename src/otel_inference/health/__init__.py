"""Pure arithmetic on ended calls: no clock, no lock, no thread, no OpenTelemetry.

The public function `otel_inference.health()` has the name of this package, and Python binds a
package's name in its parent as soon as it is imported. So the package can be called: it asks the
runtime, which it knows by name only, since nothing in here may depend on it.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, model: str | None = None) -> Any:
        """See `otel_inference.runtime.health`."""
        return importlib.import_module("otel_inference.runtime").health(model)


sys.modules[__name__].__class__ = _CallablePackage
