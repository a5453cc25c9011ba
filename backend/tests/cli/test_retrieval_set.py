from __future__ import annotations

from pathlib import Path

import pytest

from app.cli.retrieval_set import Text, read_retrieval_set
from app.core.errors import Invalid

FILES = {
    "corpus.jsonl": '{"_id": "d1", "title": "One", "text": "first"}\n{"_id": "d2", "text": "second"}\n',
    "queries.jsonl": '{"_id": "q1", "text": "which?"}\n{"_id": "q2", "text": "what?"}\n',
    "qrels.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n",
}


def write(folder: Path, **changed: str) -> Path:
    """A valid set, but for the files `changed` (named with `_` for the dot)."""
    texts = FILES | {name.replace("_", ".", 1): text for name, text in changed.items()}
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


class TestReading:
    def test_takes_texts_with_and_without_title(self, tmp_path: Path) -> None:
        found = read_retrieval_set(write(tmp_path))
        assert found.texts == [Text("d1", "One", "first"), Text("d2", "", "second")]

    def test_keeps_the_grades_of_judged_queries_only(self, tmp_path: Path) -> None:
        assert read_retrieval_set(write(tmp_path)).judgements == {"q1": {"d1": 1, "d2": 0}}

    def test_leaves_out_queries_without_a_relevant_document(self, tmp_path: Path) -> None:
        qrels = FILES["qrels.tsv"] + "q2\td1\t0\n"
        assert "q2" not in read_retrieval_set(write(tmp_path, qrels_tsv=qrels)).judgements

    def test_passes_over_blank_lines_other_fields_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        corpus = '\ufeff{"_id": "d1", "text": "a", "metadata": {}}\r\n\r\n{"_id": "d2", "text": "b"}'
        assert len(read_retrieval_set(write(tmp_path, corpus_jsonl=corpus)).texts) == 2

    def test_a_document_without_text_is_its_title(self, tmp_path: Path) -> None:
        corpus = '{"_id": "d1", "title": "T", "text": ""}\n{"_id": "d2", "text": "b"}'
        assert read_retrieval_set(write(tmp_path, corpus_jsonl=corpus)).texts[0].text == "T"

    def test_is_named_after_its_folder(self, tmp_path: Path) -> None:
        assert read_retrieval_set(write(tmp_path)).name == tmp_path.name


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"corpus_jsonl": "{}\n"}, "corpus.jsonl, line 1: the field '_id' is missing"),
            ({"corpus_jsonl": '{"_id": "d1"}\n'}, "the field 'text' is missing; there are ['_id']"),
            ({"corpus_jsonl": '\n\n{"_id": 7, "text": "a"}\n'}, "line 3: '_id' must be a string, not int"),
            ({"corpus_jsonl": '{"_id": "", "text": "a"}\n'}, "'_id' has 0 characters"),
            ({"corpus_jsonl": '{"_id": "d", "title": " ", "text": ""}\n'}, "are both empty"),
            ({"corpus_jsonl": FILES["corpus.jsonl"] * 2}, "line 3: the '_id' 'd1' occurs twice"),
            ({"corpus_jsonl": ""}, "corpus.jsonl: the file is empty"),
            ({"queries_jsonl": '{"_id": "q1", "text": "a"\n'}, "queries.jsonl, line 1: not JSON"),
            ({"queries_jsonl": "[1]\n"}, "a JSON object is expected, not list"),
            ({"queries_jsonl": '{"_id": "q1", "text": " "}\n'}, "'text' has 1 characters"),
            ({"qrels_tsv": "q1\td1\t1\n"}, "qrels.tsv, line 1: it must name the columns"),
            ({"qrels_tsv": FILES["qrels.tsv"] + "q1 d1 1\n"}, "line 4: it has 1 tab-separated columns"),
            ({"qrels_tsv": FILES["qrels.tsv"] + "q9\td1\t1\n"}, "the query 'q9' is not in queries.jsonl"),
            ({"qrels_tsv": FILES["qrels.tsv"] + "q1\td9\t1\n"}, "the document 'd9' is not in corpus.jsonl"),
            ({"qrels_tsv": FILES["qrels.tsv"] + "q1\td1\thigh\n"}, "the score 'high' is not a whole number"),
            ({"qrels_tsv": "query-id\tcorpus-id\tscore\nq1\td1\t0\n"}, "no query has a relevant document"),
        ],
    )
    def test_is_told_with_file_and_line(self, tmp_path: Path, changed: dict[str, str], message: str) -> None:
        with pytest.raises(Invalid) as caught:
            read_retrieval_set(write(tmp_path, **changed))
        assert message in caught.value.detail

    def test_a_line_that_is_not_utf_8(self, tmp_path: Path) -> None:
        write(tmp_path)
        (tmp_path / "queries.jsonl").write_bytes(b'{"_id": "q1", "text": "caf\xe9"}\n')
        with pytest.raises(Invalid, match=r"queries.jsonl, line 1: not UTF-8 at byte 27"):
            read_retrieval_set(tmp_path)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        (write(tmp_path) / "qrels.tsv").unlink()
        with pytest.raises(Invalid, match="There is no file"):
            read_retrieval_set(tmp_path)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(Invalid, match="There is no folder"):
            read_retrieval_set(tmp_path / "nowhere")
