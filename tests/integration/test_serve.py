"""`transformers serve`, which nobody here wrote, under the launcher, asked the way OpenAI's clients ask."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

BIN = Path(sys.executable).parent
MESSAGES = [{"role": "user", "content": "Name three colours."}]
TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}assistant: "
BATCHED = ["--continuous-batching", "--cb-num-blocks", "8", "--cb-max-batch-tokens", "64"]


@pytest.fixture(scope="module")
def chatter(tmp_path_factory):
    """A folder `chatter`: a Llama of two layers with random weights that speaks in single letters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    letters = [letter for letter in sorted(pre_tokenizers.ByteLevel.alphabet()) if ord(letter) < 127 or letter in "ĠĊ"]
    tokenizer = Tokenizer(models.BPE({letter: at for at, letter in enumerate(["<s>", "</s>", *letters])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("models") / "chatter"
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(letters) + 2, bos_token_id=0, eos_token_id=1, **size)
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    ).save_pretrained(folder)
    return folder


class Server:
    """A running `transformers serve`."""

    def __init__(self, prefix, model, options, environment, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [*prefix, str(BIN / "transformers"), "serve", str(model), "--device", "cpu", *options]
        self.log = (folder / f"{port}.log").open("w+")
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            cwd=folder,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def wait(self):
        """Return once the server answers."""
        for _ in range(1000):
            with contextlib.suppress(URLError, ConnectionError), urlopen(f"{self.url}/health") as answer:
                return answer.read()
            assert self.process.poll() is None, Path(self.log.name).read_text()
            time.sleep(0.1)
        return pytest.fail("the server did not start")

    def ask(self, *, stream):
        """Each line of the answer to a chat request, with the seconds after which it came."""
        body = {"messages": MESSAGES, "stream": stream, "temperature": 0, "max_tokens": 12}
        request = Request(f"{self.url}/v1/chat/completions", json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        started = time.monotonic()
        with urlopen(request, timeout=30) as answer:
            return [(time.monotonic() - started, line.decode()) for line in answer]

    def stop(self, number=signal.SIGKILL):
        """End the server with a signal; its exit code."""
        self.process.send_signal(number)
        self.log.close()
        return self.process.wait(20)


@pytest.fixture
def servers(chatter, environment, tmp_path):
    """The server without the launcher, with it, and with it and continuous batching; all ready."""
    environment["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    launcher = [str(BIN / "opentelemetry-instrument")]
    servers = [
        Server(prefix, chatter, options, environment, tmp_path)
        for prefix, options in (([], []), (launcher, []), (launcher, BATCHED))
    ]
    try:
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.stop()


def streamed(lines):
    """Text and usage of a streamed answer, and when its text began; its form is checked."""
    events = [line for _, line in lines if line != "\n"]
    assert all(event.startswith("data: ") for event in events)
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert choices[0]["delta"] == {"role": "assistant"}
    assert [choice.get("finish_reason") for choice in choices] == [None] * (len(choices) - 1) + ["length"]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    return text, chunks[-1]["usage"], next(seconds for seconds, line in lines if '"content"' in line)


def whole(lines):
    """Text and usage of an answer in one piece."""
    ((_, line),) = lines
    answer = json.loads(line)
    return answer["choices"][0]["message"]["content"], answer["usage"]


def generations(receiver, server):
    """Attributes of the two generations of a server, once their spans have arrived; beside them are only loads."""
    for _ in range(100):
        spans = [found for found in receiver.spans() if found[0] == server.process.pid and found[1][:5] != "load "]
        if len(spans) >= 2:
            break
        time.sleep(0.1)
    assert [name for _, name, _ in spans] == ["generate chatter"] * 2
    return [attributes for _, _, attributes in spans]


def test_answers_the_same_and_measures_each_request(servers, receiver):
    """Streamed and whole answers are those given without us, and each is one span with its tokens and times."""
    answers = [(streamed(server.ask(stream=True)), whole(server.ask(stream=False))) for server in servers]

    text, usage = answers[0][1]
    assert usage["completion_tokens"] == 12
    for server, (streamed_answer, whole_answer) in zip(servers, answers, strict=True):
        assert streamed_answer[:2] == whole_answer == (text, usage)
        if server is servers[0]:
            continue
        first, second = generations(receiver, server)
        for attributes in (first, second):
            assert attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
            assert attributes["gen_ai.usage.output_tokens"] == attributes["gen_ai.request.max_tokens"] == 12
            assert attributes["inference.time_to_first_token"] > 0 < attributes["inference.time_per_output_token"]
            assert ("inference.queue.duration" in attributes) is (server is servers[2])
            assert "error.type" not in attributes
        assert first["inference.time_to_first_token"] <= streamed_answer[2]
        assert (first.get("gen_ai.request.stream"), second.get("gen_ai.request.stream")) == (True, None)
    # The code depends on who started the tests; with continuous batching the server never ends by itself.
    assert servers[0].stop(signal.SIGINT) == servers[1].stop(signal.SIGINT)
