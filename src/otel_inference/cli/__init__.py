"""The console script `otel-inference`."""
