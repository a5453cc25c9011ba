"""What each node type does in a run."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from app.agent.core.interfaces import Citation, Finished, Message, Role, Session, TextDelta
from app.agent.graph.ports import RunFailed
from tests.agent.documents import ANSWER, end, graph, llm, node, text
from tests.agent.doubles import Bench, passage, says


def rag(**config: Any) -> dict[str, Any]:
    return graph(
        node("search", "retrieve", {"collection": "kb", "query": "{{ inputs.question }}", "top_k": 2}),
        llm("write", context="{{ search.results }}", citations=True, **config),
        end(answer="{{ write.text }}", sources="{{ write.citations }}"),
        edges=["start > search", "search > write", "write > done"],
        **ANSWER,
    )


class TestNodes:
    async def test_retrieve_passes_its_settings_on(self) -> None:
        config = {
            "collection": "kb",
            "query": "about {{ inputs.question }}",
            "mode": "keyword",
        }
        document = graph(
            node("search", "retrieve", config),
            end(found="{{ search.results }}"),
            edges=["start > search", "search > done"],
        )
        bench = Bench(document)
        result = await bench.run()
        assert bench.shelf.searches == [("handbook", "about Why?", 6, "keyword")]
        assert [found["title"] for found in result.output["found"]] == ["Document 1", "Document 2"]

    async def test_a_blank_query_fails(self) -> None:
        bench = Bench(rag())
        with pytest.raises(RunFailed, match="the query is empty"):
            await bench.run(question="  ")

    async def test_the_model_gets_passages_history_and_settings(self) -> None:
        document = rag(history="{{ inputs.past }}", temperature=0.5, max_tokens=99)
        document["inputs"]["properties"]["past"] = {"type": "array", "default": []}
        document["nodes"][2]["config"]["prompt"].insert(0, {"role": "system", "content": "Be brief."})
        bench = Bench(document)
        await bench.run(past=[{"role": "assistant", "content": "Hello", "id": 7}])
        (request,) = bench.model.requests
        assert request.messages == [
            Message(Role.SYSTEM, "Be brief."),
            Message(Role.ASSISTANT, "Hello"),
            Message(Role.USER, "Why?"),
        ]
        assert request.context == [passage(1), passage(2)]
        assert (request.citations, request.temperature, request.max_tokens) == (True, 0.5, 99)

    async def test_a_history_that_is_none_fails_with_the_place(self) -> None:
        document = rag(history="{{ inputs.past }}")
        document["inputs"]["properties"]["past"] = {"type": "array", "default": []}
        with pytest.raises(RunFailed, match=r"history .* at '0.role'"):
            await Bench(document).run(past=[{"content": "x"}])

    async def test_a_stream_that_breaks_off_is_an_error(self) -> None:
        with pytest.raises(RunFailed) as failure:
            await Bench(rag(), [TextDelta("Half")]).run()
        assert failure.value.code == "server_error"

    async def test_output_keeps_types(self) -> None:
        document = graph(
            end(n="{{ inputs.n }}", deep={"list": ["{{ inputs.n }}", "n={{ inputs.n }}", True]}),
            edges=["start > done"],
        )
        document["inputs"] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        result = await Bench(document).given({"n": 3})
        assert result.output == {"n": 3, "deep": {"list": [3, "n=3", True]}}

    async def test_the_session_is_read(self) -> None:
        document = graph(
            end(
                who="{{ session.user.name }}",
                thread="{{ session.id }}",
                tone='{{ session.variables.t ?? "calm" }}',
            ),
            edges=["start > done"],
        )
        bench = Bench(document)
        session = Session("s-1", user={"name": "Ada"})
        result = await bench.given({"question": "x"}, session=session)
        assert result.output == {"who": "Ada", "thread": "s-1", "tone": "calm"}

    async def test_a_value_that_only_the_run_can_miss(self) -> None:
        bench = Bench(graph(end(x="{{ session.variables.name }}"), edges=["start > done"]))
        with pytest.raises(RunFailed, match=r"'session.variables.name' is not set in this run") as failure:
            await bench.run()
        assert failure.value.code == "unset_reference"

    async def test_templates_that_double_each_other_are_stopped(self) -> None:
        doubling = [text(f"t{i}", f"{{{{ t{i - 1}.text }}}}" * 2) for i in range(1, 60)]
        names = ["start", *(f"t{i}" for i in range(60)), "done"]
        edges = [f"{a} > {b}" for a, b in pairwise(names)]
        with pytest.raises(RunFailed) as failure:
            await Bench(graph(text("t0", "x" * 100), *doubling, end(), edges=edges)).run()
        assert failure.value.code == "too_large"

    async def test_an_output_that_repeats_a_large_value_is_stopped(self) -> None:
        document = graph(end(all=["{{ inputs.question }}"] * 5000), edges=["start > done"])
        with pytest.raises(RunFailed, match="more than 4194304 characters"):
            await Bench(document).run(question="x" * 1000)

    async def test_the_messages_of_the_session_can_be_indexed(self) -> None:
        bench = Bench(graph(end(last="{{ session.messages.0.content }}"), edges=["start > done"]))
        session = Session("s", messages=({"role": "user", "content": "Hello"},))
        result = await bench.given({"question": "x"}, session=session)
        assert result.output == {"last": "Hello"}

    async def test_state_goes_through_its_reducers(self) -> None:
        document = graph(
            node("a", "note", {"field": "seen", "value": "one"}),
            node("b", "note", {"field": "seen", "value": "two"}),
            node("c", "note", {"field": "count", "value": "{{ inputs.n }}"}),
            end(seen="{{ state.seen }}", count="{{ state.count }}"),
            edges=["start > a", "start > b", "start > c", "a > done", "b > done", "c > done"],
            state={
                "seen": {"type": "array", "reducer": "append", "initial": ["zero"]},
                "count": {"type": "number", "reducer": "add", "initial": 40},
            },
        )
        document["inputs"]["properties"]["n"] = {"type": "number", "default": 2}
        output = (await Bench(document).run()).output
        assert (sorted(output["seen"]), output["count"]) == (["one", "two", "zero"], 42)

    async def test_a_write_of_the_wrong_type_fails_the_node(self) -> None:
        document = graph(
            node("a", "note", {"field": "count", "value": "many"}),
            end(),
            edges=["start > a", "a > done"],
            state={"count": {"type": "number", "reducer": "add", "initial": 0}},
        )
        with pytest.raises(RunFailed, match="takes number, not string"):
            await Bench(document).run()


class TestCitations:
    async def test_a_marker_without_a_citation_leads_to_the_whole_passage(self) -> None:
        bench = Bench(rag(), says("Yes [2], no [1, 9]."))
        sources = (await bench.run()).output["sources"]
        assert [(s["index"], s["title"], s["start"], s["quote"]) for s in sources] == [
            (1, "Document 1", 10, "Passage 1."),
            (2, "Document 2", 20, "Passage 2."),
        ]

    async def test_the_model_s_own_citation_wins(self) -> None:
        found = passage(1)
        cited = Citation(1, found.chunk_id, found.document_id, found.title, 12, 15, "ass")
        bench = Bench(rag(), [TextDelta("Yes [1]."), cited, Finished()])
        sources = (await bench.run()).output["sources"]
        assert [(s["start"], s["end"], s["quote"]) for s in sources] == [(12, 15, "ass")]

    async def test_a_citation_event_names_its_message(self) -> None:
        bench = Bench(rag(), says("Yes [1]."))
        await bench.run()
        (citation,) = bench.log.custom("citation")
        start = next(event for event in bench.log.events if event.type.value == "TEXT_MESSAGE_START")
        assert citation["message_id"] == start.message_id

    async def test_without_citations_markers_are_text(self) -> None:
        document = graph(
            node("search", "retrieve", {"collection": "kb", "query": "x"}),
            llm("write", context="{{ search.results }}"),
            end(sources="{{ write.citations }}"),
            edges=["start > search", "search > write", "write > done"],
        )
        assert (await Bench(document, says("Yes [1].")).run()).output == {"sources": []}
