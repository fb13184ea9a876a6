"""What of llama-cpp-python this package sees, without a model: for machines where it is not built.

Same names, same ways: `generate` yields token by token, ends included; a completion is made by one
generator; pieces of text and tokens are not the same, since a character may take several tokens.
"""

# ruff: noqa: FBT002, PLR0917 - the library's signatures

from __future__ import annotations

import ctypes

END = 0
ANSWER = (b" Paris", b".", b" \xf0\x9f", b"\x98\x80", b" The", b" river", b" is", b" the", b" Seine")


def llama_supports_gpu_offload():
    """A build for the CPU."""
    return False


def llama_vocab_is_eog(vocab, token):
    """Whether `token` ends a generation."""
    return bool(ctypes.c_int(token).value == END)


class LlamaBatch:
    """Sequences on their way to the model."""

    def __init__(self):
        """An empty batch."""
        self.tokens = []

    def add_sequence(self, batch, seq_id, logits_all):
        """Add the tokens of one text."""
        self.tokens.extend(batch)


class _Model:
    """What knows the vocabulary."""

    vocab = object()


class Llama:
    """A model that always gives the same answer."""

    def __init__(self, model_path, *, n_ctx=512, embedding=False, verbose=True):
        """Load nothing."""
        if "missing" in model_path:
            msg = f"Model path does not exist: {model_path}"
            raise ValueError(msg)
        self.model_path = model_path
        self.chat_handler = None
        self._n_ctx = n_ctx
        self._model = _Model()
        self._batch = LlamaBatch()

    def tokenize(self, text, add_bos=True, special=False):
        """One token a word."""
        return list(range(1, len(text.split()) + 1))

    def eval(self, tokens):
        """Run the model."""

    def generate(self, tokens, top_k=40, top_p=0.95, temp=0.8):
        """The tokens of the answer, then the one that ends it."""
        tokens = list(tokens)
        for token in (*range(1, len(ANSWER) + 1), END):
            self.eval(tokens)
            yield token
            tokens = [token]

    def _create_completion(self, prompt, max_tokens=16, temperature=0.8, top_p=0.95, top_k=40, stream=False):
        """The one generator behind a completion, streamed or not."""
        prompt_tokens = self.tokenize(prompt.encode())
        if len(prompt_tokens) >= self._n_ctx:
            msg = f"Requested tokens ({len(prompt_tokens)}) exceed context window of {self._n_ctx}"
            raise ValueError(msg)
        pieces, returned, reason = [], 0, "length"
        for token in self.generate(prompt_tokens, top_k=top_k, top_p=top_p, temp=temperature):
            if llama_vocab_is_eog(self._model.vocab, token):
                reason = "stop"
                break
            pieces.append(ANSWER[token - 1])
            text = b"".join(pieces[returned:]).decode(errors="ignore").strip()
            if stream and text:
                returned = len(pieces)
                yield {"choices": [{"index": 0, "text": text, "finish_reason": None}]}
            if 0 < max_tokens <= len(pieces):
                break
        if stream:
            yield {"choices": [{"index": 0, "text": "", "finish_reason": reason}]}
            return
        yield {
            "choices": [{"index": 0, "text": b"".join(pieces).decode(errors="ignore"), "finish_reason": reason}],
            "usage": {"prompt_tokens": len(prompt_tokens), "completion_tokens": len(pieces)},
        }

    def create_completion(
        self, prompt, suffix=None, max_tokens=16, temperature=0.8, top_p=0.95, top_k=40, stream=False
    ):
        """A completion, or a generator of its chunks."""
        chunks = self._create_completion(
            prompt=prompt,
            max_tokens=-1 if max_tokens is None else max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            stream=stream,
        )
        return chunks if stream else next(chunks)

    def __call__(self, prompt, suffix=None, max_tokens=16, temperature=0.8, top_p=0.95, top_k=40, stream=False):
        """The same by another name."""
        return self.create_completion(prompt, suffix, max_tokens, temperature, top_p, top_k, stream)

    def create_chat_completion(self, messages, temperature=0.2, top_p=0.95, top_k=40, stream=False, max_tokens=None):
        """A completion of a conversation, or a generator of its chunks."""
        if self.chat_handler is not None:
            return self.chat_handler(llama=self, messages=messages, stream=stream)
        prompt = " ".join(message["content"] for message in messages)
        completion = self.create_completion(prompt, None, max_tokens, temperature, top_p, top_k, stream)
        return _chat_chunks(completion) if stream else completion

    def create_embedding(self, input, model=None):  # noqa: A002 - the library's name
        """Embeddings of a text or of several."""
        texts = input if isinstance(input, list) else [input]
        embeddings, total = self.embed(texts, return_count=True)
        data = [{"embedding": embedding} for embedding in embeddings]
        return {"data": data, "usage": {"prompt_tokens": total, "total_tokens": total}}

    def embed(self, input, normalize=False, truncate=True, return_count=False):  # noqa: A002 - the library's name
        """Embeddings alone."""
        texts = [input] if isinstance(input, str) else input
        total = 0
        for index, text in enumerate(texts):
            tokens = self.tokenize(text.encode())
            total += len(tokens)
            self._batch.add_sequence(tokens, index, logits_all=True)
        embeddings = [[0.0] for _ in texts]
        output = embeddings[0] if isinstance(input, str) else embeddings
        return (output, total) if return_count else output


def _chat_chunks(chunks):
    """Chunks of a completion as those of a chat."""
    for chunk in chunks:
        yield {"choices": [{"index": 0, "delta": {"content": chunk["choices"][0]["text"]}}]}
