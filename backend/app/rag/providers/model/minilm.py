"""The offline embedding model: all-MiniLM-L6-v2 through onnxruntime, loaded when first used."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.core.errors import Misconfigured
from app.rag.providers.model.fair_batches import FairBatches
from app.rag.providers.model.minilm_graph import DIMENSIONS, ensure_graph, model_folder
from app.rag.types import Dense

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

MAX_TOKENS = 256
"""What the model reads of a text, its two markers included; the rest is cut off."""
_MAX_CHARACTERS = 16_384  # far beyond 256 word pieces of any real text; bounds the tokenizer's work


class MiniLM:
    """`Embedder` over the installed weights; `folder` keeps the graph that is built from them once.

    English only. `threads` batches are computed at once, 0 means one per core; `batch_size` is the
    upper limit of texts per batch. With `int8` it is faster and smaller, but vectors are off by about
    0.01 in cosine and depend a little on the texts computed beside them. One instance belongs to one
    process: make it after a fork. `embed` raises `Misconfigured` or `StorageFull` where the model
    cannot be loaded, and `Unavailable` once closed.
    """

    name = "all-minilm-l6-v2"
    dimensions = DIMENSIONS

    def __init__(self, folder: Path, *, threads: int = 0, batch_size: int = 32, int8: bool = False) -> None:
        self._folder = folder
        self._threads = threads or _cores()
        self._int8 = int8
        self._loaded: tuple[Tokenizer, InferenceSession] | None = None
        self._loading = threading.Lock()
        self._batches = FairBatches(
            self._run,
            dimensions=self.dimensions,
            batch_size=batch_size,
            name=self.name,
            threads=self._threads,
        )

    @property
    def ready(self) -> bool:
        return self._loaded is not None

    async def embed(self, texts: Sequence[str]) -> Dense:
        """Unit vectors, shape (len(texts), 384), in order. Cancelling it frees the model."""
        return await asyncio.wrap_future(self._batches.submit(list(texts)))

    def close(self) -> None:
        """Waits for the batches being computed (well under a second) and ends the threads."""
        self._batches.close()

    @staticmethod
    def tokenizer_path() -> Path:
        """The model's `tokenizer.json`. It asks for truncation and padding to 128; `tokenizer` does not."""
        return model_folder() / "tokenizer.json"

    @staticmethod
    @lru_cache(maxsize=1)
    def tokenizer() -> Tokenizer:
        """The model's tokenizer without truncation and padding, shared: do not change its settings."""
        tokenizer = _read_tokenizer()
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @staticmethod
    def count_tokens(text: str) -> int:
        """Word pieces of `text`, without the two markers that the model adds."""
        return len(MiniLM.tokenizer().encode(text, add_special_tokens=False).ids)

    def _run(self, texts: list[str]) -> Dense:
        with self._loading:
            tokenizer, session = self._loaded = self._loaded or self._load()
        # one by one: the batch call would start a thread pool that does not survive the fork of a child
        pieces = [tokenizer.encode(_readable(text)).ids for text in texts]
        ids = np.zeros((len(pieces), max(map(len, pieces))), np.int64)
        mask = np.zeros_like(ids)
        for row, piece in enumerate(pieces):
            ids[row, : len(piece)] = piece
            mask[row, : len(piece)] = 1
        (vectors,) = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})
        return np.asarray(vectors, np.float32)

    def _load(self) -> tuple[Tokenizer, InferenceSession]:
        # heavy: 50 MB and 0.3 s that most processes never need
        try:
            from onnxruntime import InferenceSession, SessionOptions  # noqa: PLC0415
        except ImportError as error:
            raise Misconfigured(
                f"The package 'onnxruntime' cannot be imported ({error}): run 'make setup' again."
            ) from error
        tokenizer = _read_tokenizer()
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        options = SessionOptions()
        # One batch per thread: threads that share a batch wait for each other at every step of it, which
        # costs a fifth more CPU as soon as anything else runs on the machine.
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        path = ensure_graph(self._folder, int8=self._int8)
        return tokenizer, InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _readable(text: str) -> str:
    """Without lone surrogates, at which the tokenizer would fail, and with it the texts of other callers."""
    return text[:_MAX_CHARACTERS].encode("utf-8", "replace").decode()


def _read_tokenizer() -> Tokenizer:
    # heavy: only for those who count or embed
    from tokenizers import Tokenizer  # noqa: PLC0415

    return Tokenizer.from_file(str(MiniLM.tokenizer_path()))


def _cores() -> int:
    """Cores this process may use (a container's or taskset's share, not the machine's)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1
