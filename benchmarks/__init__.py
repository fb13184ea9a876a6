"""What a measured call costs: `python -m benchmarks`, or `make bench`."""
