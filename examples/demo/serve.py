"""A small program that serves four kinds of requests, as one of yours might.

It knows nothing of telemetry, but for one line that gives a model a better name; the launcher
instruments it from outside. `run.py` starts it, and shows what it prints.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
import torch
from magika import Magika
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer, pipeline

from otel_inference import name_model

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPTS = (
    "What is the capital of France?",
    "Name three primary colours.",
    "Write one sentence about the sea.",
    "What is two plus two?",
    "Give me a word that rhymes with cat.",
    "Which planet is the largest?",
)
SENTENCES = (
    "The collector receives spans and metrics.",
    "A histogram keeps counts per bucket.",
    "The cat sleeps on the warm windowsill.",
    "Latency is the time between request and response.",
    "Bread is made of flour, water, salt and yeast.",
    "The train to the coast leaves at noon.",
)
MAX_NEW_TOKENS = 24
FORWARDS = 40
PIPELINE_CALLS = 30
FILES = 150


def say(text: str) -> None:
    """Print a line in one piece: the exporter's threads write to standard output as well."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def refused(what: str, request: Callable[[], Any]) -> None:
    """Send a request that cannot succeed, and go on serving."""
    try:
        request()
    except Exception as error:  # noqa: BLE001 - a server answers with an error and goes on
        say(f"  {what}: {type(error).__name__}")
    else:
        sys.exit(f"{what}: this request was made to fail, and was served")


def generate(folder: Path) -> None:
    """Answer prompts with a language model, streamed."""
    say(f"{folder.name}: loading, which takes about half a minute")
    started = time.perf_counter()
    model, tokenizer = load_generator(folder)
    say(f"{folder.name}: loaded in {time.perf_counter() - started:.0f} s")
    for prompt in PROMPTS:
        say(f"  {prompt} -> {answer(model, tokenizer, prompt)}")
    generate_nothing(model)


def load_generator(folder: Path) -> tuple[Any, Any]:
    """A language model and its tokenizer, from quantised weights."""
    weights = next(folder.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=weights)
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=weights, dtype=torch.float32), tokenizer


def generate_nothing(model: Any) -> None:
    """Ask a language model for what it cannot do."""
    outside = torch.tensor([[model.config.vocab_size + 1]])
    refused("token id out of range", lambda: model.generate(outside, max_new_tokens=4))
    refused("nothing to generate", lambda: model.generate(torch.tensor([[1]]), max_new_tokens=0))


def answer(model: Any, tokenizer: Any, prompt: str) -> str:
    """What the model says to `prompt`, collected from a stream as a web server would send it."""
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60)
    options = {"max_new_tokens": MAX_NEW_TOKENS, "do_sample": False, "streamer": streamer}
    thread = threading.Thread(target=model.generate, kwargs={**inputs, **options}, daemon=True)
    thread.start()
    pieces = list(streamer)
    thread.join()
    return " ".join("".join(pieces).split())


def embed(folder: Path) -> None:
    """Embed sentences with the bare model, one by one and in batches."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        for number in range(FORWARDS):
            batch = list(SENTENCES) if number % 4 == 0 else [SENTENCES[number % len(SENTENCES)]]
            model(**tokenizer(batch, padding=True, return_tensors="pt"))
        say(f"{folder.name}: {FORWARDS} forward calls")
        refused("token id out of range", lambda: model(input_ids=torch.tensor([[model.config.vocab_size]])))
        too_long = torch.ones((1, model.config.max_position_embeddings + 1), dtype=torch.long)
        refused("sequence too long", lambda: model(input_ids=too_long))


def embed_by_pipeline(folder: Path) -> None:
    """Embed sentences with a pipeline."""
    extract = pipeline("feature-extraction", model=str(folder))
    for number in range(PIPELINE_CALLS):
        extract(SENTENCES[number % len(SENTENCES)])
    say(f"{folder.name}: {PIPELINE_CALLS} pipeline calls")
    refused("text too long", lambda: extract("word " * 600))


def identify(folder: Path) -> None:
    """Tell the types of files with magika, which runs an ONNX model."""
    magika = Magika(model_dir=folder)
    # Its file is called `model.onnx`, as many are, and that would be its name in telemetry.
    name_model(magika._onnx_session, folder.name)
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:FILES]
    labels = [magika.identify_path(source).output.label for source in sources]
    say(f"{folder.name}: {len(sources)} files of the standard library, {labels.count('python')} of them Python")

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    name_model(session, folder.name)
    size = session.get_inputs()[0].shape[1]
    refused("wrong input name", lambda: session.run(None, {"byte": [[0] * size]}))
    refused("wrong input shape", lambda: session.run(None, {"bytes": [[0] * (size - 1)]}))


def main() -> None:
    """Serve the models in the folder that the command line names."""
    models = Path(sys.argv[1])
    identify(models / "magika")
    embed(models / "all-MiniLM-L6-v2")
    embed_by_pipeline(models / "all-MiniLM-L6-v2")
    generate(models / "SmolLM2-135M-Instruct")


if __name__ == "__main__":
    main()
