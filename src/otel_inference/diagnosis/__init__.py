"""From numbers to judgement: what is wrong, since when, and why. Pure: no clock, lock, thread, OpenTelemetry."""
