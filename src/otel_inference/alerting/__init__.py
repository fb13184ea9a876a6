"""Telling people and other systems of findings, without ever holding up or breaking anything."""
