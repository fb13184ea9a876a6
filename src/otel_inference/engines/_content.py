"""Prompts and outputs as attributes, in the form of the GenAI conventions; only if the user asked for them."""

from __future__ import annotations

import json
from typing import Any

from otel_inference import guard, semconv


def of_inputs(inputs: Any) -> dict[str, str]:
    """The messages of a prompt, of a list of prompts or of a conversation; nothing else is touched."""
    if isinstance(inputs, str):
        return _attribute(semconv.GEN_AI_INPUT_MESSAGES, [_message("user", inputs)])
    if not isinstance(inputs, list):
        return {}
    messages = [
        _message("user", item) if isinstance(item, str) else _message(str(item.get("role")), item.get("content"))
        for item in inputs
        if isinstance(item, (str, dict))
    ]
    return _attribute(semconv.GEN_AI_INPUT_MESSAGES, messages)


def of_results(results: Any) -> dict[str, str]:
    """The texts that a pipeline returned."""
    messages = []
    for result in _flat(results):
        text = result.get("generated_text")
        if isinstance(text, list) and text and isinstance(text[-1], dict):
            text = text[-1].get("content")  # of a conversation the last message is new
        messages.append(_message("assistant", text))
    return _attribute(semconv.GEN_AI_OUTPUT_MESSAGES, messages)


def _flat(results: Any) -> list[dict[str, Any]]:
    if isinstance(results, dict):
        return [results]
    return [found for item in results for found in _flat(item)] if isinstance(results, list) else []


def _message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": content}]}


def _attribute(name: str, messages: list[dict[str, Any]]) -> dict[str, str]:
    if not messages:
        return {}
    try:
        return {name: json.dumps(messages)}
    except (TypeError, ValueError):
        guard.failed("content")
        return {}
