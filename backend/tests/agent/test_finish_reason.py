"""Why a model ended its answer: told by the node's output, its event and its journal entry."""

from __future__ import annotations

from typing import Any

import pytest

from app.agent.core.interfaces import Finished, FinishReason, ModelError, TextDelta, ToolCall
from app.agent.graph.ports import RunFailed
from tests.agent.documents import ANSWER, end, graph, issues, line, llm, node, text
from tests.agent.doubles import Bench, Kept, Script, says

CUT_OFF: Script = [TextDelta("Half of"), Finished("length")]


def asking(**policies: Any) -> dict[str, Any]:
    return line(llm("write") | policies, output="{{ write.text }}", **ANSWER)


def ended(bench: Bench) -> dict[str, Any]:
    return next(value for value in bench.log.custom("node.finished") if value["node_id"] == "write")


class TestOutput:
    def test_is_text(self) -> None:
        assert issues(line(llm("write"), output="{{ write.finish_reason }}")) == []

    @pytest.mark.parametrize(("script", "way"), [(CUT_OFF, "short"), (says("All."), "good")])
    async def test_may_decide_on_the_way(self, script: Script, way: str) -> None:
        branches = [{"handle": "cut", "when": "{{ write.finish_reason }} == 'length'"}]
        document = graph(
            llm("write"), node("c", "condition", {"branches": branches}),
            text("a", "short"), text("b", "good"),
            end(answer="{{ a.text ?? b.text }}"),
            edges=["start > write", "write > c", "c.cut > a", "c.else > b", "a > done", "b > done"],
        )  # fmt: skip
        assert (await Bench(document, script).run()).output == {"answer": way}

    async def test_is_in_the_journal(self) -> None:
        bench = Bench(asking(), CUT_OFF)
        await bench.run()
        (step,) = [step for step in bench.log.steps if step.node_path == "write"]
        assert step.output is not None
        assert step.output["finish_reason"] == "length"


class TestEvent:
    @pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
    async def test_tells_it(self, reason: FinishReason) -> None:
        bench = Bench(asking(), [TextDelta("Well"), Finished(reason)])
        assert (await bench.run()).output == {"answer": "Well"}
        assert ended(bench)["finish_reason"] == reason

    async def test_of_nodes_that_ask_no_model_has_none(self) -> None:
        bench = Bench(asking(), CUT_OFF)
        await bench.run()
        others = [value for value in bench.log.custom("node.finished") if value["node_id"] != "write"]
        assert all("finish_reason" not in value for value in others)

    async def test_of_a_model_that_fails_has_none(self) -> None:
        bench = Bench(asking(), [TextDelta("Well"), ModelError("auth", "no")])
        with pytest.raises(RunFailed):
            await bench.run()
        assert "finish_reason" not in ended(bench)

    async def test_tells_that_of_the_last_attempt(self) -> None:
        bench = Bench(asking(retry={"initial_s": 0}), [ModelError("server_error", "no")], CUT_OFF)
        await bench.run()
        assert (ended(bench)["attempts"], ended(bench)["finish_reason"]) == (2, "length")

    async def test_tells_that_of_a_cached_answer(self) -> None:
        kept = Kept()
        for _ in range(2):
            bench = Bench(asking(cache={"ttl_s": 60}), CUT_OFF, cache=kept)
            await bench.run()
        assert (ended(bench)["cached"], ended(bench)["finish_reason"]) == (True, "length")


class TestNothingSaid:
    @pytest.mark.parametrize(
        ("script", "code", "said"),
        [
            (
                [ToolCall("c1", "weather", "{}"), Finished("tool_calls")],
                "unexpected_tool_calls",
                "'scripted' asked for tools ('weather') instead of answering, and was given none",
            ),
            ([Finished("tool_calls")], "unexpected_tool_calls", "(it does not name)"),
            ([TextDelta(" \n"), Finished("content_filter")], "content_filter", "by a content filter"),
        ],
    )
    async def test_but_tools_or_filtered_fails_the_node(self, script: Script, code: str, said: str) -> None:
        bench = Bench(asking(), script)
        with pytest.raises(RunFailed, match="'scripted'") as failure:
            await bench.run()
        assert failure.value.code == code
        assert said in failure.value.detail
        assert ended(bench)["finish_reason"] == script[-1].reason  # type: ignore[union-attr]

    async def test_is_told_in_a_message_of_bounded_length(self) -> None:
        calls = [ToolCall(f"c{n}", "x" * 10_000, "{}") for n in range(100)]
        with pytest.raises(RunFailed) as failure:
            await Bench(asking(), [*calls, Finished("tool_calls")]).run()
        assert len(failure.value.detail) < 600

    async def test_and_nothing_wrong_is_an_empty_answer(self) -> None:
        assert (await Bench(asking(), [Finished()]).run()).output == {"answer": ""}
