"""Limiters before a simulated server: what is done in time when more is asked than can be done."""
