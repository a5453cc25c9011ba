"""One run from input to terminal event: the story it tells, what it returns, what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from ag_ui.core import RunErrorEvent, RunFinishedEvent, RunStartedEvent

from app.agent.core.events import PAYLOADS, payload_of
from app.agent.core.interfaces import Finished, ModelError, TextDelta, Usage
from app.agent.graph.ports import InvalidInput, RunFailed, Undeliverable
from tests.agent.documents import ANSWER, end, graph, llm, node, text
from tests.agent.doubles import Bench, Log, Shelf, says


def rag(**config: Any) -> dict[str, Any]:
    return graph(
        node("search", "retrieve", {"collection": "kb", "query": "{{ inputs.question }}", "top_k": 2}),
        llm("write", context="{{ search.results }}", citations=True, **config),
        end(answer="{{ write.text }}", sources="{{ write.citations }}"),
        edges=["start > search", "search > write", "write > done"],
        **ANSWER,
    )


def with_apology(**policies: Any) -> dict[str, Any]:
    return graph(
        llm("write", **policies),
        text("apology", "Sorry: {{ write.error.message }}"),
        end(answer="{{ write.text ?? apology.text }}"),
        edges=["start > write", "write > done", "write.error > apology", "apology > done"],
        **ANSWER,
    )


class TestStory:
    async def test_events_come_in_order(self) -> None:
        bench = Bench(rag(), says("Because ", "[1]."))
        await bench.run()
        assert bench.log.names == [
            "RUN_STARTED",
            "node.started start",
            "node.finished start",
            "node.started search",
            "node.finished search",
            "node.started write",
            "TEXT_MESSAGE_START",
            "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_CONTENT",
            "citation write",
            "TEXT_MESSAGE_END",
            "node.finished write",
            "node.started done",
            "node.finished done",
            "RUN_FINISHED",
        ]

    async def test_the_ends_carry_ids_result_and_usage(self) -> None:
        bench = Bench(rag(), says("Because."))
        result = await bench.run()
        first, last = bench.log.events[0], bench.log.events[-1]
        assert isinstance(first, RunStartedEvent)
        assert isinstance(last, RunFinishedEvent)
        assert (first.run_id, first.thread_id, first.protocol_version) == ("run-1", "thread-1", "1.0")
        assert last.result == result.output == {"answer": "Because.", "sources": []}
        assert [(used.model, used.input_tokens, used.output_tokens) for used in last.usage or []] == [
            ("scripted", 3, 2)
        ]

    async def test_every_custom_event_has_the_documented_payload(self) -> None:
        bench = Bench(with_apology(retry={}), [TextDelta("Be"), ModelError("auth", "no key")])
        await bench.run()
        customs = [event for event in bench.log.events if event.type.value == "CUSTOM"]
        assert all(payload_of(event) for event in customs)
        assert {event.name for event in customs} < set(PAYLOADS)

    async def test_a_step_is_recorded_before_its_end_is_told(self) -> None:
        bench = Bench(rag())
        await bench.run()
        paths = [(path, type(entry).__name__) for path, entry in bench.log.entries if path == "search"]
        assert paths == [("search", "CustomEvent"), ("search", "StepRecord"), ("search", "CustomEvent")]

    async def test_pure_nodes_are_not_recorded(self) -> None:
        bench = Bench(rag())
        await bench.run()
        assert [(step.node_path, step.status, step.handle) for step in bench.log.steps] == [
            ("search", "succeeded", "out"),
            ("write", "succeeded", "out"),
        ]

    async def test_a_record_has_output_and_usage(self) -> None:
        bench = Bench(rag(), says("Because."))
        await bench.run()
        step = bench.log.steps[-1]
        assert step.output is not None
        assert step.output["text"] == "Because."
        assert step.usage == {
            **{"input_tokens": 3, "output_tokens": 2},
            "by_model": {"scripted": {"input_tokens": 3, "output_tokens": 2}},
        }

    async def test_the_same_run_has_the_same_message_ids(self) -> None:
        stories = []
        for _ in range(2):
            bench = Bench(rag())
            await bench.run()
            stories.append([event.model_dump() for event in bench.log.events])
        assert stories[0] == stories[1]


class TestAnswer:
    async def test_text_is_shown_as_it_comes(self) -> None:
        bench = Bench(rag(), says("A", "", "b", "c"))
        await bench.run()
        assert bench.log.names.count("TEXT_MESSAGE_CONTENT") == 3

    async def test_text_of_another_model_is_a_node_event(self) -> None:
        document = graph(
            llm("think"),
            llm("write", "{{ think.text }}"),
            end(answer="{{ write.text }}"),
            edges=["start > think", "think > write", "write > done"],
            **ANSWER,
        )
        bench = Bench(document, says("Hm."), says("Yes."))
        await bench.run()
        assert bench.log.text == "Yes."
        assert [value.get("text") for value in bench.log.custom("node.finished")] == [None, "Hm.", None, None]

    async def test_a_template_that_answers_is_shown(self) -> None:
        bench = Bench(with_apology(), [ModelError("auth", "no key")])
        result = await bench.run()
        assert bench.log.text == result.output["answer"] == "Sorry: no key"

    async def test_an_answer_made_of_parts_is_shown_once_at_the_end(self) -> None:
        document = graph(
            llm("write"),
            end(answer="> {{ write.text }}"),
            edges=["start > write", "write > done"],
            **ANSWER,
        )
        bench = Bench(document, says("Yes."))
        await bench.run()
        assert bench.log.text == "> Yes."
        assert bench.log.names[-5:-1] == [
            "node.finished done",
            "TEXT_MESSAGE_START",
            "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_END",
        ]

    async def test_an_empty_answer_is_no_message(self) -> None:
        bench = Bench(rag(), [Finished()])
        assert (await bench.run()).output["answer"] == ""
        assert "TEXT_MESSAGE_START" not in bench.log.names

    async def test_without_an_interface_there_is_no_message(self) -> None:
        bench = Bench(graph(llm("write"), end(), edges=["start > write", "write > done"]))
        await bench.run()
        assert bench.log.text == ""

    async def test_of_parallel_models_only_the_preferred_one_is_heard(self) -> None:
        document = graph(
            llm("a", "first"),
            llm("b", "second"),
            end(answer="{{ a.text ?? b.text }}"),
            edges=["start > a", "start > b", "a > done", "b > done"],
            **ANSWER,
        )
        bench = Bench(document, says("one"), says("two"))
        result = await bench.run()
        assert bench.log.text == result.output["answer"]


class TestInput:
    async def test_errors_have_pointers_and_nothing_starts(self) -> None:
        bench = Bench(rag())
        with pytest.raises(InvalidInput) as failure:
            await bench.run(question=3, language=[])
        assert [(error.pointer, error.code) for error in failure.value.errors] == [
            ("/question", "type"),
            ("/language", "type"),
        ]
        assert bench.log.entries == []

    @pytest.mark.parametrize("value", [None, [], "x", {"question": float("nan")}, {"question": {1: 2}}])
    def test_what_is_no_json_object(self, value: Any) -> None:
        with pytest.raises(InvalidInput):
            Bench(rag()).agent.validate_input(value)

    def test_defaults_are_filled_in(self) -> None:
        document = rag()
        document["inputs"]["properties"]["language"]["default"] = "en"
        assert Bench(document).agent.validate_input({"question": "x"}) == {"question": "x", "language": "en"}

    def test_unique_items_compare_as_json_does(self) -> None:
        document = rag()
        document["inputs"]["properties"]["list"] = {"type": "array", "uniqueItems": True}
        agent = Bench(document).agent
        assert agent.validate_input({"question": "x", "list": [1, True, "1"]})
        with pytest.raises(InvalidInput):
            agent.validate_input({"question": "x", "list": [{"a": 1}, {"a": 1.0}]})


class TestFailure:
    async def test_a_failure_ends_the_run_with_one_error_event(self) -> None:
        bench = Bench(rag(), [ModelError("auth", "no key")])
        with pytest.raises(RunFailed) as failure:
            await bench.run()
        last = bench.log.events[-1]
        assert isinstance(last, RunErrorEvent)
        assert (last.code, last.message) == ("auth", "node 'write' failed: no key")
        assert (failure.value.code, failure.value.node_id) == ("auth", "write")
        assert sum(name.startswith("RUN_") for name in bench.log.names) == 2

    async def test_usage_before_the_failure_is_kept(self) -> None:
        document = graph(
            llm("a"), llm("b"), end(), edges=["start > a", "a > b", "b > done"]
        )  # fmt: skip
        bench = Bench(document, says("x"), [ModelError("auth", "no key")])
        with pytest.raises(RunFailed) as failure:
            await bench.run()
        assert failure.value.usage == Usage(3, 2)

    async def test_an_unexpected_exception_shows_no_details(self, caplog: pytest.LogCaptureFixture) -> None:
        bench = Bench(graph(node("a", "nap", {"crash": True}), end(), edges=["start > a", "a > done"]))
        with pytest.raises(RunFailed) as failure:
            await bench.run()
        assert failure.value.code == "internal_error"
        assert not any("leak" in str(entry) for entry in bench.log.entries)
        assert "a detail that must not leak" in caplog.text

    async def test_nothing_follows_the_error_of_one_of_two_parallel_nodes(self) -> None:
        document = graph(
            node("bad", "nap", {"fail": True}),
            llm("slow"),
            end(answer="{{ slow.text }}"),
            edges=["start > bad", "start > slow", "bad > done", "slow > done"],
            **ANSWER,
        )
        bench = Bench(document, [TextDelta("a"), 0.01, TextDelta("b"), 5.0, TextDelta("c"), Finished()])
        with pytest.raises(RunFailed):
            await bench.run()
        assert bench.log.names[-1] == "RUN_ERROR"
        assert bench.model.closed == 1

    @pytest.mark.parametrize("broken", ["emit", "finished"])
    async def test_a_broken_sink_or_journal_stops_the_run_without_a_word(self, broken: str) -> None:
        class Broken(Log):
            async def emit(self, event: Any, *, node_path: str = "") -> None:
                if broken == "emit" and node_path == "write":
                    raise OSError("fenced off")
                await super().emit(event, node_path=node_path)

            async def finished(self, step: Any, event: Any = None) -> None:
                if broken == "finished":
                    raise OSError("fenced off")

        bench = Bench(with_apology(retry={}))
        bench.log = Broken()
        with pytest.raises(Undeliverable):
            await bench.run()
        assert not any(name in ("RUN_ERROR", "RUN_FINISHED", "retry write") for name in bench.log.names)


class TestProcess:
    def test_langgraph_is_not_imported_before_the_first_run(self) -> None:
        code = (
            "import sys; from app.agent.factory import AgentFactory;"
            "from app.agent.workflows.simple_rag import simple_rag; g = simple_rag('x');"
            "AgentFactory().build(g, g.content_hash); sys.exit('langgraph' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_tracing_stays_off_whatever_the_environment_says(self) -> None:
        code = (
            "import sys; import app.agent.langgraph_adapter; from langsmith.utils import tracing_is_enabled;"
            "sys.exit(bool(tracing_is_enabled()))"
        )
        loud = os.environ | {"LANGSMITH_TRACING": "true", "LANGCHAIN_TRACING_V2": "true"}
        assert subprocess.run([sys.executable, "-c", code], check=False, env=loud).returncode == 0

    async def test_a_retriever_that_fails_is_a_node_error(self) -> None:
        bench = Bench(rag(), shelf=Shelf(error=ModelError("timeout", "too slow")))
        with pytest.raises(RunFailed, match="node 'search' failed: too slow"):
            await bench.run()
