from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from app.core.errors import Misconfigured, Unavailable
from app.rag.providers.model.minilm import MiniLM
from tests.rag.model.embedder_conformance import EmbedderConformance

# The model's published example: sentence-transformers gives these values.
BACKEND = Path(__file__).parents[3]
EXAMPLE = "This is an example sentence"
EXAMPLE_VECTOR = [0.0676569, 0.0634959, 0.0487131, 0.0793049, 0.0374480]


class TestMiniLM(EmbedderConformance):
    async def test_agrees_with_the_published_vector(self, embedder: MiniLM) -> None:
        (vector,) = await embedder.embed([EXAMPLE])
        assert np.allclose(vector[:5], EXAMPLE_VECTOR, atol=1e-5)

    async def test_reads_no_more_than_256_word_pieces(self, embedder: MiniLM) -> None:
        full, longer = await embedder.embed(["word " * 254, "word " * 254 + "and something else entirely"])
        assert np.allclose(full, longer, atol=1e-4)

    async def test_lone_surrogates_do_no_harm(self, embedder: MiniLM) -> None:
        assert (await embedder.embed(["broken \ud800 text", "whole text"])).shape == (2, 384)

    async def test_a_query_does_not_wait_for_many_documents(self, model_folder: Path) -> None:
        model = MiniLM(model_folder, threads=1, batch_size=1)
        await model.embed(["loads the model"])
        documents = asyncio.ensure_future(model.embed(["a long passage of words " * 50] * 16))
        await asyncio.sleep(0.02)
        await model.embed(["a short query"])
        assert not documents.done()
        assert (await documents).shape == (16, 384)
        model.close()

    async def test_a_cancelled_call_frees_the_model(self, embedder: MiniLM) -> None:
        documents = asyncio.ensure_future(embedder.embed(["a long passage of words " * 50] * 2000))
        await asyncio.sleep(0.05)
        documents.cancel()
        before = time.perf_counter()
        await embedder.embed(["another long passage of words " * 50] * 8)
        assert time.perf_counter() - before < 10  # 2,000 of them take about a minute


class TestInt8:
    async def test_is_close_to_the_exact_model(self, embedder: MiniLM, model_folder: Path) -> None:
        texts = [EXAMPLE, "How long does a refund take?", "The parcel arrives in Berlin on Monday."]
        small = MiniLM(model_folder, int8=True)
        assert not small.ready
        cosines = (await small.embed(texts) * await embedder.embed(texts)).sum(axis=1)
        small.close()
        assert cosines.min() > 0.97


class TestClosed:
    async def test_says_that_it_is_closed(self, tmp_path: Path) -> None:
        model = MiniLM(tmp_path)
        model.close()
        with pytest.raises(Unavailable, match="closed"):
            await model.embed(["too late"])


class TestFolder:
    async def test_one_that_cannot_be_made_is_a_configuration_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        model = MiniLM(tmp_path / "file" / "models")
        with pytest.raises(Misconfigured, match="models"):
            await model.embed(["text"])
        model.close()


class TestTokens:
    def test_counts_word_pieces(self) -> None:
        assert MiniLM.count_tokens("refunds are quick") == 4  # ref ##unds are quick

    def test_counts_beyond_what_the_model_reads(self) -> None:
        assert MiniLM.count_tokens("word " * 1000) == 1000

    def test_the_tokenizer_file_exists(self) -> None:
        assert MiniLM.tokenizer_path().is_file()


class TestImport:
    def test_loads_nothing_heavy(self) -> None:
        code = (
            "import sys; from app.rag.providers.model.minilm import MiniLM; from pathlib import Path; "
            "MiniLM(Path('unused')); "
            "heavy = {'onnx', 'onnxruntime', 'tokenizers', 'torch', 'sentence_transformers'}; "
            "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=BACKEND)
        assert (done.returncode, done.stderr) == (0, "")


class TestTelemetry:
    def test_of_the_runtime_is_off(self, tmp_path: Path, model_folder: Path) -> None:
        """Where it is on, the runtime keeps its session in the folder for temporary files."""
        program = (
            "from pathlib import Path; from app.rag.providers.model.minilm import MiniLM; "
            f"MiniLM(Path({str(model_folder)!r}))._load()"
        )
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        subprocess.run([sys.executable, "-c", program], check=True, cwd=BACKEND, env=environment)
        assert list(tmp_path.iterdir()) == []
