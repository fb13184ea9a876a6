"""transformers: pipelines, generation, loading, on tiny models with random weights."""

from __future__ import annotations

import json
import time
from threading import Thread

import pytest
import torch

from otel_inference import Config, name_model, observe
from otel_inference.testing import recorded

IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])


@pytest.fixture
def bert(tmp_path):
    """A folder `encoder` with a tiny BERT encoder and its tokenizer."""
    from transformers import BertConfig, BertModel, BertTokenizer

    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc")
    folder = tmp_path / "encoder"
    config = BertConfig(vocab_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(str(vocabulary)).save_pretrained(folder)
    return folder


def generate(model, ids=IDS, **options):
    """`model.generate` with a full attention mask."""
    return model.generate(ids, attention_mask=torch.ones_like(ids), **options)


def span_of(telemetry):
    """The one call so far."""
    (span,) = [span for span in telemetry.spans() if not span.name.startswith("load ")]
    return span


def test_describes_a_generation(telemetry, gpt2):
    """One span with the request, the tokens of all rows and the times, and no span per step."""
    generate(gpt2, max_new_tokens=4, min_new_tokens=4, do_sample=True, temperature=0.5, top_k=3)

    span = span_of(telemetry)
    attributes = dict(span.attributes)
    first, each = attributes.pop("inference.time_to_first_token"), attributes.pop("inference.time_per_output_token")
    duration_s = (span.end_time - span.start_time) / 1e9
    assert span.name == "generate GPT2LMHeadModel"
    assert 0 < first < first + 3 * each <= duration_s
    assert (
        attributes.items()
        >= {
            "inference.batch.size": 2,
            "inference.input.size": 6,
            "gen_ai.operation.name": "text_completion",
            "gen_ai.provider.name": "transformers",
            "gen_ai.request.model": "GPT2LMHeadModel",
            "gen_ai.request.max_tokens": 4,
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.top_k": 3,
            "gen_ai.usage.input_tokens": 6,
            "gen_ai.usage.output_tokens": 8,
        }.items()
    )


def test_records_the_gen_ai_metrics(telemetry, gpt2):
    """Durations, first tokens, tokens and both token counts, each once per generation."""
    generate(gpt2, max_new_tokens=3, min_new_tokens=3)

    who = {"gen_ai__operation__name": "text_completion", "gen_ai__provider__name": "transformers"}
    for name in ("request.duration", "time_to_first_token", "time_per_output_token"):
        assert telemetry.count(f"gen_ai.server.{name}", **who) == 1
    tokens = {
        point.attributes["gen_ai.token.type"]: point.sum for point in telemetry.points("gen_ai.client.token.usage")
    }
    assert tokens == {"input": 6, "output": 6}


def test_measures_the_first_token_where_the_streamer_sees_it(telemetry, gpt2):
    """The measured time to first token agrees with the arrival of the first token at a streamer."""
    arrivals = []

    class Streamer:
        def put(self, _):
            arrivals.append(time.perf_counter())
            time.sleep(0.05)

        def end(self):
            pass

    started = time.perf_counter()
    generate(gpt2, IDS[:1], max_new_tokens=3, min_new_tokens=3, streamer=Streamer())

    first = span_of(telemetry).attributes["inference.time_to_first_token"]
    prompt, first_token, second_token = (arrival - started for arrival in arrivals[:3])
    assert prompt < first_token < first < second_token
    assert span_of(telemetry).attributes["gen_ai.request.stream"] is True


def test_leaves_padding_out(telemetry, gpt2):
    """Padding before a prompt is no input, and what fills a row after its end is no output."""
    ends = {"calls": 0}

    def end_first_row(_, scores):
        ends["calls"] += 1
        scores[:] = -1e9
        scores[:, 5] = 0.0
        if ends["calls"] == 2:
            scores[0, 1] = 1.0
        return scores

    from transformers import LogitsProcessorList

    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    result = gpt2.generate(
        IDS, attention_mask=mask, max_new_tokens=5, logits_processor=LogitsProcessorList([end_first_row])
    )

    assert result.shape == (2, 8)
    assert span_of(telemetry).attributes["gen_ai.usage.input_tokens"] == 5
    assert span_of(telemetry).attributes["gen_ai.usage.output_tokens"] == 2 + 5


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"prompt_lookup_num_tokens": 2},
        {"max_time": 60.0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_counts_every_way_of_decoding(telemetry, gpt2, options):
    """Beams, several sequences, speculation and time limits: tokens as returned, one call."""
    ids = IDS[:1]
    result = generate(gpt2, ids, max_new_tokens=6, min_new_tokens=6, **options)

    attributes = span_of(telemetry).attributes
    assert attributes["gen_ai.usage.input_tokens"] == 3
    assert attributes["gen_ai.usage.output_tokens"] == result.shape[0] * 6
    assert attributes["inference.time_to_first_token"] > 0


def test_times_the_model_and_not_its_assistant(telemetry, gpt2):
    """With an assistant model the tokens and the first token are those of the model itself, in one call."""
    import copy

    result = generate(gpt2, IDS[:1], max_new_tokens=6, min_new_tokens=6, assistant_model=copy.deepcopy(gpt2))

    attributes = span_of(telemetry).attributes
    assert result.shape == (1, 9)
    assert attributes["gen_ai.usage.output_tokens"] == 6
    assert 0 < attributes["inference.time_to_first_token"] < attributes["inference.stage.prefill.duration"] * 1.5


def test_describes_vision_and_audio(telemetry):
    """Pipelines over pictures and sound are one call each, with the elements that the model gets."""
    import numpy as np
    from PIL import Image
    from transformers import (
        ViTConfig,
        ViTForImageClassification,
        ViTImageProcessor,
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForSequenceClassification,
        pipeline,
    )

    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    eye = ViTForImageClassification(ViTConfig(**tiny, image_size=16, patch_size=8))
    convolutions = {"conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2}
    position = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    ear = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**tiny, **convolutions, **position, classifier_proj_size=8))
    see = pipeline(
        "image-classification", model=eye, image_processor=ViTImageProcessor(size={"height": 16, "width": 16})
    )
    hear = pipeline("audio-classification", model=ear, feature_extractor=Wav2Vec2FeatureExtractor())
    see([Image.new("RGB", (20, 20))] * 2)
    hear(np.zeros(1600, np.float32))

    sizes = [span.attributes["inference.input.size"] for span in telemetry.spans()]
    assert [span.name.split()[0] for span in telemetry.spans()] == ["pipeline"] * 2
    assert sizes == [2 * 3 * 16 * 16, 1600]


def test_does_not_change_what_is_generated(telemetry, gpt2):
    """Sampled tokens are the same with and without us, from the same seed."""
    from otel_inference import uninstrument

    torch.manual_seed(7)
    ours = generate(gpt2, max_new_tokens=12, do_sample=True)
    uninstrument()
    torch.manual_seed(7)
    bare = generate(gpt2, max_new_tokens=12, do_sample=True)

    assert torch.equal(ours, bare)


def test_times_a_chunked_prefill_to_its_end(telemetry, gpt2):
    """With the prompt read in chunks, the first token comes after the last chunk."""
    steps = []

    def slow_down(*_):
        steps.append(time.perf_counter())
        time.sleep(0.02)

    gpt2.register_forward_pre_hook(slow_down)
    started = time.perf_counter()
    generate(gpt2, IDS[:1].repeat(1, 4), max_new_tokens=3, min_new_tokens=3, prefill_chunk_size=4)

    first = span_of(telemetry).attributes["inference.time_to_first_token"]
    assert len(steps) == 3 + 2
    assert 3 * 0.02 <= first < steps[4] - started


def test_counts_an_encoder_decoder(telemetry):
    """The decoder's start token is not generated."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0, pad_token_id=0
    )
    model = T5ForConditionalGeneration(config).eval()
    generate(model, max_new_tokens=4, min_new_tokens=4, suppress_tokens=[0])  # padding is no output

    attributes = span_of(telemetry).attributes
    assert attributes["gen_ai.usage.input_tokens"] == 6
    assert attributes["gen_ai.usage.output_tokens"] == 8


def test_counts_a_generation_from_embeddings(telemetry, gpt2):
    """A prompt of embeddings has one token a position; all returned tokens are new."""
    embeds = gpt2.transformer.wte.weight[IDS].detach()
    result = gpt2.generate(
        inputs_embeds=embeds, attention_mask=torch.ones_like(IDS), max_new_tokens=3, min_new_tokens=3
    )

    attributes = span_of(telemetry).attributes
    assert result.shape == (2, 3)
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (6, 6)


def test_generates_in_a_thread(telemetry, gpt2):
    """The usual way to stream: `generate` in a thread of its own is one call."""
    thread = Thread(target=generate, args=(gpt2,), kwargs={"max_new_tokens": 2})
    thread.start()
    thread.join()

    assert span_of(telemetry).name == "generate GPT2LMHeadModel"


def test_adds_its_tokens_to_an_observed_call(telemetry, gpt2):
    """A generation inside an observed call is no call of its own; its tokens and times are the call's."""
    with observe("assistant", "answer"):
        generate(gpt2, max_new_tokens=2, min_new_tokens=2)
        generate(gpt2, max_new_tokens=3, min_new_tokens=3)

    attributes = span_of(telemetry).attributes
    assert attributes["gen_ai.usage.output_tokens"] == 2 * 2 + 2 * 3
    assert attributes["gen_ai.request.model"] == "assistant"
    assert attributes["inference.time_per_output_token"] > 0


def test_counts_pipeline_generation_and_forwards_once(telemetry, gpt2, bert):
    """Pipeline, generation and forwards are one call; the same model called bare is one more."""
    from transformers import AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(bert)
    writer = pipeline("text-generation", model=gpt2, tokenizer=tokenizer)
    writer("a b c", max_new_tokens=3, min_new_tokens=3)
    gpt2(IDS)

    calls = [span for span in telemetry.spans() if not span.name.startswith("load ")]
    assert [span.name for span in calls] == ["pipeline GPT2LMHeadModel", "forward GPT2LMHeadModel"]
    assert calls[0].attributes["gen_ai.usage.output_tokens"] == 3
    assert calls[0].attributes["inference.input.size"] == calls[0].attributes["gen_ai.usage.input_tokens"]
    assert telemetry.count("inference.call.duration") == 2


def test_tells_a_chat_from_a_batch(telemetry, gpt2, bert):
    """A conversation is one item of a chat, whatever the number of its messages."""
    from transformers import AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(bert)
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    writer = pipeline("text-generation", model=gpt2, tokenizer=tokenizer)
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    writer(messages, max_new_tokens=1)
    writer([messages, messages, messages], max_new_tokens=1)
    writer(["a", "b"], max_new_tokens=1)

    seen = [
        (span.attributes["gen_ai.operation.name"], span.attributes.get("inference.batch.size"))
        for span in telemetry.spans()
        if span.name.startswith("pipeline")
    ]
    assert seen == [("chat", None), ("chat", 3), ("text_completion", 2)]


@pytest.mark.parametrize("detail", ["calls", "stages"])
def test_tells_the_stages_apart(gpt2, bert, detail):
    """A call's stages are attributes, and child spans where asked for, one after the other inside the call."""
    from transformers import AutoTokenizer, pipeline

    with recorded(config=Config(strict=True, spans_detail=detail)) as telemetry:
        writer = pipeline("text-generation", model=gpt2, tokenizer=AutoTokenizer.from_pretrained(bert))
        writer("a b c", max_new_tokens=3, min_new_tokens=3)

    *children, call = [span for span in telemetry.spans() if not span.name.startswith("load ")]
    stages = ["preprocess", "prefill", "decode", "postprocess"]
    durations = [call.attributes[f"inference.stage.{stage}.duration"] for stage in stages]
    assert all(duration > 0 for duration in durations)
    assert sum(durations) <= (call.end_time - call.start_time) / 1e9
    if detail == "calls":
        assert children == []
        return
    children.sort(key=lambda span: span.start_time)
    assert [span.name for span in children] == [f"{stage} GPT2LMHeadModel" for stage in stages]
    assert {span.parent.span_id for span in children} == {call.context.span_id}
    edges = [edge for span in children for edge in (span.start_time, span.end_time)]
    assert edges == sorted(edges)
    assert call.start_time <= edges[0] <= edges[-1] <= call.end_time


def test_keeps_content_out_unless_asked(gpt2, bert):
    """Prompts and outputs are recorded only with `capture_content`."""
    from transformers import AutoTokenizer, pipeline

    seen = []
    for capture in (False, True):
        with recorded(config=Config(strict=True, capture_content=capture)) as telemetry:
            tokenizer = AutoTokenizer.from_pretrained(bert)
            tokenizer.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
            writer = pipeline("text-generation", model=gpt2, tokenizer=tokenizer)
            writer(["a b c", "b"], max_new_tokens=2)
            writer([{"role": "user", "content": "c a"}], max_new_tokens=2)
            seen.append([dict(span.attributes) for span in telemetry.spans() if span.name.startswith("pipeline")])

    assert not any("messages" in name or "a b c" in str(value) for span in seen[0] for name, value in span.items())
    batch, chat = (json.loads(span["gen_ai.input.messages"]) for span in seen[1])
    assert [message["parts"][0]["content"] for message in batch] == ["a b c", "b"]
    assert chat == [{"role": "user", "parts": [{"type": "text", "content": "c a"}]}]
    assert len(json.loads(seen[1][0]["gen_ai.output.messages"])) == 2


@pytest.fixture
def embed(telemetry, bert):
    """A feature-extraction pipeline."""
    from transformers import pipeline

    return pipeline("feature-extraction", model=str(bert))


def test_describes_embeddings(telemetry, embed):
    """A feature-extraction pipeline is an embedding with input tokens, named after its folder."""
    embed(["a b", "c"])

    span = span_of(telemetry)
    assert span.name == "pipeline encoder"
    assert span.attributes["inference.batch.size"] == 2
    assert span.attributes["gen_ai.operation.name"] == "embeddings"
    assert span.attributes["gen_ai.usage.input_tokens"] == 4 + 3
    assert "gen_ai.usage.output_tokens" not in span.attributes


def test_takes_the_pipelines_name(telemetry, embed):
    """A name given to a pipeline goes before its model's."""
    name_model(embed, "embedder")
    embed("a")

    assert span_of(telemetry).name == "pipeline embedder"


def test_measures_an_iterator_to_its_last_item(telemetry, embed):
    """A generator is neither consumed nor measured early: its one call ends with the last result."""
    taken = []

    def texts():
        for text in ("a", "b", "c"):
            taken.append(text)
            yield text

    results = embed(texts())
    assert len(taken) <= 1
    for _ in results:
        assert [span for span in telemetry.spans() if span.name.startswith("pipeline")] == []

    assert taken == ["a", "b", "c"]
    assert span_of(telemetry).attributes["gen_ai.usage.input_tokens"] == 9
    assert telemetry.points("inference.active_calls")[0].value == 0


def test_ends_an_iterator_that_fails(telemetry, embed):
    """An exception out of the host's generator ends the call, as failed, and reaches the host."""

    def texts():
        yield "a"
        msg = "no more"
        raise LookupError(msg)

    with pytest.raises(LookupError, match="no more"):
        list(embed(texts()))

    assert span_of(telemetry).attributes["error.type"] == "LookupError"


@pytest.mark.parametrize("steps", [0, 1], ids=["never consumed", "dropped early"])
def test_ends_an_iterator_that_is_dropped(telemetry, embed, steps):
    """An iterator that is dropped, used or not, is a call that ended without an error."""
    results = iter(embed(text for text in ("a", "b", "c")))
    for _ in range(steps):
        next(results)
    del results
    embed("a")

    dropped, _ = [span for span in telemetry.spans() if span.name.startswith("pipeline")]
    assert "error.type" not in dropped.attributes
    assert telemetry.count("inference.call.duration") == 2


def test_describes_a_load(telemetry, bert):
    """`from_pretrained` is one load, named after its folder."""
    from transformers import AutoModel

    AutoModel.from_pretrained(bert)

    (span,) = telemetry.spans()
    assert span.name == "load encoder"
    assert telemetry.count("inference.model.load.duration", inference__engine="transformers") == 1


def test_counts_a_load_inside_a_call(telemetry, bert):
    """A model loaded at the first request is a load of its own within that request."""
    from transformers import AutoModel

    with observe("server", "request"):
        model = AutoModel.from_pretrained(bert)
        model(IDS % 8)  # still a part of the request

    load, request = telemetry.spans()
    assert load.parent.span_id == request.context.span_id
    assert request.attributes["inference.model"] == "server"


def test_times_steps_without_the_torch_engine(gpt2):
    """With only transformers instrumented, bare calls are not counted and tokens are still timed."""
    with recorded(["transformers"]) as telemetry:
        gpt2(IDS)
        generate(gpt2, max_new_tokens=2, min_new_tokens=2)

    assert span_of(telemetry).attributes["inference.time_to_first_token"] > 0
