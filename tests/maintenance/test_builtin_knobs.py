"""The engines' own knobs, on torch and transformers themselves."""

from __future__ import annotations

import gc
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from otel_inference.errors import KnobError
from otel_inference.maintenance.builtin_knobs import (
    adopt_torch_threads,
    max_new_tokens,
    pipeline_batch_size,
    torch_threads,
)


def _run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_imports_no_engine():
    """Neither the module nor asking for a knob imports torch."""
    program = """
import sys
from otel_inference.maintenance.builtin_knobs import torch_threads, pipeline_batch_size
for make in (torch_threads, lambda: pipeline_batch_size(object())):
    try: make()
    except ValueError as error: print(error)
print(sorted(sys.modules.keys() & {"torch", "transformers"}))
"""
    torch, pipeline, imported = _run(program).splitlines()

    assert "call this after that" in torch
    assert "expected a pipeline" in pipeline
    assert imported == "[]"


def test_torch_threads_reach_threads_that_already_computed():
    """A serving thread that used torch before takes over each change with its next call, and its own number at the end."""
    program = """
import torch
from concurrent.futures import ThreadPoolExecutor
from otel_inference.maintenance.builtin_knobs import adopt_torch_threads, torch_threads
torch.set_num_threads(4)
server, seen = ThreadPoolExecutor(1), []
def call():
    adopt_torch_threads()
    torch.ones(300, 300) @ torch.ones(300, 300)
    return torch.get_num_threads()
server.submit(torch.set_num_threads, 3).result()  # its own choice
seen.append(server.submit(call).result())
torch.set_num_threads(4)
knob = torch_threads()
for count in (1, 2, 4):
    knob.write(count)
    seen += [knob.read(), ThreadPoolExecutor(1).submit(call).result(), server.submit(call).result(), knob.read()]
print(knob.levels, knob.lower_is_lighter, seen)
"""
    assert _run(program) == "(1, 2, 3, 4) False [3, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 3, 4]"


def test_torch_threads_need_more_than_one():
    """With one thread there is nothing to tune."""
    pytest.importorskip("torch")
    with pytest.raises(KnobError, match="one thread only"):
        torch_threads(most=1)


def test_adopts_nothing_before_anything_was_wanted():
    """Without such a knob a call changes nothing."""
    import torch

    with ThreadPoolExecutor(1) as server:
        before = server.submit(torch.get_num_threads).result()
        server.submit(adopt_torch_threads).result()
        assert server.submit(torch.get_num_threads).result() == before


def test_shortens_what_a_model_writes_and_lets_it_write_as_before(gpt2):
    """A lower cap gives shorter texts; the highest level is what the user had set."""
    import torch

    gpt2.generation_config.max_new_tokens = 24
    gpt2.generation_config.eos_token_id = None
    knob = max_new_tokens(gpt2, least=4)
    prompt = torch.tensor([[3, 4, 5]])
    lengths = []
    for tokens in (4, 9, 24):
        knob.write(tokens)
        lengths.append(gpt2.generate(prompt, do_sample=False).shape[1] - 3)

    assert (knob.levels[0], knob.levels[-1], knob.brown_out) == (4, 24, True)
    assert lengths == [4, 9, 24]
    with pytest.raises(KnobError, match="expected from 4 to 24"):
        knob.write(25)


def test_needs_a_cap_to_lower(gpt2):
    """Without a cap of the user's there is no value to go back to, and the error says how to set one."""
    gpt2.generation_config.max_new_tokens = None
    with pytest.raises(KnobError, match=r"set model\.generation_config\.max_new_tokens"):
        max_new_tokens(gpt2, least=4)


def test_does_not_keep_a_model_alive():
    """Once the model is gone the knob says so."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=8, n_positions=8))
    model.generation_config.max_new_tokens = 4
    knob = max_new_tokens(model, least=1)
    assert knob.read() == 4
    del model
    gc.collect()
    with pytest.raises(KnobError, match="the model is gone"):
        knob.read()


@pytest.fixture
def pipeline(gpt2):
    """A text classification pipeline with a tokenizer of ten words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2ForSequenceClassification, PreTrainedTokenizerFast, TextClassificationPipeline

    words = {word: place for place, word in enumerate(["<pad>", "a", "b", "c", "d", "e", "f", "g", "h", "<unk>"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextClassificationPipeline(
        model=GPT2ForSequenceClassification(gpt2.config).eval(),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"),
    )


def test_gives_a_pipeline_larger_batches(pipeline):
    """The model sees as many items at once as the knob says; the lowest level is as the pipeline was."""
    pipeline.model.config.pad_token_id = 0
    seen = []
    pipeline.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    knob = pipeline_batch_size(pipeline, most=8)
    for size in (4, 1):
        knob.write(size)
        pipeline(["a b", "c", "d e f", "g", "h"])

    assert seen == [4, 1, 1, 1, 1, 1, 1]
    assert pipeline._batch_size is None
    assert knob.levels == (1, 2, 3, 5, 8)


def test_refuses_a_pipeline_that_cannot_batch(pipeline):
    """A pipeline that would raise with a larger batch, for want of a padding token, gets no knob."""
    pipeline.tokenizer.pad_token = None
    with pytest.raises(KnobError, match=r"cannot work on batches.*pad_token"):
        pipeline_batch_size(pipeline)
