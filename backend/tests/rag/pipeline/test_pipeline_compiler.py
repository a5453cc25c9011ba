"""Pipeline documents: what is accepted, and that everything wrong is told at once."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.rag.components.chunker import SentenceChunker
from app.rag.pipeline.compiler import InvalidPipeline, check, compile_ingestion
from app.rag.pipeline.defaults import INGESTION

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "pipelines" / "default-ingestion.yaml"


@pytest.fixture
def document() -> dict[str, Any]:
    return copy.deepcopy(INGESTION)


def codes(document: Any) -> list[tuple[str, str]]:
    return [(issue.code, issue.pointer) for issue in check(document).issues]


class TestDefault:
    def test_is_the_example(self) -> None:
        assert yaml.safe_load(EXAMPLE.read_text()) == INGESTION

    def test_chunks_sentences_for_the_embedder(self) -> None:
        assert compile_ingestion(INGESTION).chunker == SentenceChunker(max_tokens=256, overlap=32)


class TestCheck:
    def test_names_an_unknown_type_and_the_nearest(self, document: dict[str, Any]) -> None:
        document["components"][1]["type"] = "chunker.sentense"
        (issue, *_) = check(document).issues
        assert (issue.code, issue.pointer) == ("unknown_type", "/components/1/type")
        assert "chunker.sentence" in issue.fix

    def test_tells_everything_at_once(self, document: dict[str, Any]) -> None:
        document["components"][1]["config"] = {"max_token": 1, "overlap": "many"}
        document["connections"].append(["nowhere.out", "index.vectors"])
        found = codes(document)
        assert ("unknown_key", "/components/1/config/max_token") in found
        assert ("unknown_component", "/connections/3/0") in found
        assert any(pointer == "/components/1/config/overlap" for _, pointer in found)

    def test_wants_one_component_of_each_family(self, document: dict[str, Any]) -> None:
        del document["components"][2]
        assert ("family_count", "/components") in codes(document)

    @pytest.mark.parametrize("document", [None, [], {}, {"kind": "query"}, {"components": 1}])
    def test_never_raises(self, document: Any) -> None:
        assert not check(document).valid

    def test_compiling_what_is_wrong_says_what(self, document: dict[str, Any]) -> None:
        document["components"][3]["config"]["store"] = "shelf"
        with pytest.raises(InvalidPipeline) as raised:
            compile_ingestion(document)
        assert raised.value.errors[0].pointer == "/components/3/config/store"
