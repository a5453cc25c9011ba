"""The policy `cache`: what counts as the same question, and how a result is told again."""

from __future__ import annotations

from typing import Any

import pytest

from app.agent.core.interfaces import Finished, ModelError, TextDelta
from app.agent.graph.ports import RunFailed
from tests.agent.documents import ANSWER, codes, end, graph, issues, line, llm, node, text
from tests.agent.doubles import Bench, Kept, passage, says

BUSY = [ModelError("rate_limit", "busy")]


def asking(cache: dict[str, Any], *, prompt: str = "{{ inputs.question }}", **more: Any) -> dict[str, Any]:
    return line(llm("write", prompt) | {"cache": cache}, output="{{ write.text }}", **(ANSWER | more))


async def calls(*runs: tuple[dict[str, Any], dict[str, Any]]) -> int:
    """How often the model is called, all in all, by runs that share a cache."""
    kept, count = Kept(), 0
    for document, inputs in runs:
        bench = Bench(document, cache=kept)
        await bench.run(**inputs)
        count += len(bench.model.requests)
    return count


class TestQuestions:
    async def test_that_are_the_same_are_asked_once(self) -> None:
        document = asking({"ttl_s": 60})
        assert await calls((document, {}), (document, {}), (document, {"language": "de"})) == 1

    async def test_with_other_values_are_others(self) -> None:
        document = asking({"ttl_s": 60})
        assert await calls((document, {}), (document, {"question": "Who?"})) == 2

    async def test_of_the_same_text_but_other_types_are_others(self) -> None:
        document = asking({"ttl_s": 60}, prompt="{{ inputs.x }}")
        document["inputs"]["properties"]["x"] = {}
        document["inputs"]["required"].append("x")
        assert await calls((document, {"x": 1}), (document, {"x": "1"}), (document, {"x": None})) == 3

    async def test_go_by_the_key_if_there_is_one(self) -> None:
        document = asking({"ttl_s": 60, "key": "{{ inputs.language }}"})
        document["inputs"]["required"].append("language")
        first, second = {"question": "Why?", "language": "de"}, {"question": "Who?", "language": "de"}
        assert (
            await calls((document, first), (document, second), (document, second | {"language": "en"})) == 2
        )

    async def test_of_two_nodes_are_two(self) -> None:
        first, second = (llm(name) | {"cache": {"ttl_s": 60, "key": "k"}} for name in ("one", "two"))
        assert await calls((line(first, second), {})) == 2

    async def test_include_what_the_node_was_given_by_others(self) -> None:
        kept = Kept()
        for number in (1, 2, 2):
            document = graph(
                node("search", "retrieve", {"collection": "kb", "query": "{{ inputs.question }}"}),
                llm("write", context="{{ search.results }}") | {"cache": {"ttl_s": 60}},
                end(answer="{{ write.text }}"),
                edges=["start > search", "search > write", "write > done"],
            )
            bench = Bench(document, cache=kept)
            bench.shelf._passages = (passage(number),)
            await bench.run()
        assert len(kept.steps) == 2

    async def test_are_kept_as_long_as_the_policy_says(self) -> None:
        kept = Kept()
        await Bench(asking({"ttl_s": 1.5}), cache=kept).run()
        assert kept.ttls == [1.5]


class TestHits:
    async def test_are_told_like_a_new_answer_and_marked(self) -> None:
        kept, told = Kept(), []
        for _ in range(2):
            bench = Bench(asking({"ttl_s": 60}), says("Because", "."), cache=kept)
            assert (await bench.run()).output == {"answer": "Because."}
            finished = next(v for v in bench.log.custom("node.finished") if v["node_id"] == "write")
            told.append((bench.log.text, finished.get("cached"), finished.get("usage") is None))
        assert told == [("Because.", None, False), ("Because.", True, True)]

    async def test_cost_no_tokens(self) -> None:
        kept = Kept()
        await Bench(asking({"ttl_s": 60}), cache=kept).run()
        assert (await Bench(asking({"ttl_s": 60}), cache=kept).run()).usage_by_model == {}

    async def test_are_in_the_journal_with_their_output(self) -> None:
        kept = Kept()
        steps = []
        for _ in range(2):
            bench = Bench(asking({"ttl_s": 60}), cache=kept)
            await bench.run()
            steps.append(next(step for step in bench.log.steps if step.node_path == "write"))
        assert steps[0].output == steps[1].output

    async def test_repeat_their_citations(self) -> None:
        kept = Kept()
        document = graph(
            node("search", "retrieve", {"collection": "kb", "query": "{{ inputs.question }}"}),
            llm("write", context="{{ search.results }}", citations=True) | {"cache": {"ttl_s": 60}},
            end(answer="{{ write.text }}"),
            edges=["start > search", "search > write", "write > done"],
            **ANSWER,
        )
        found = []
        for _ in range(2):
            bench = Bench(document, says("Yes [2]."), cache=kept)
            await bench.run()
            found.append([value["quote"] for value in bench.log.custom("citation")])
        assert found == [["Passage 2."], ["Passage 2."]]
        (step,) = kept.steps.values()
        assert step.documents == {passage(1).document_id, passage(2).document_id}

    async def test_leave_by_the_way_that_was_taken(self) -> None:
        branches = [{"handle": "long", "when": "len({{ inputs.question }}) > 3"}]
        document = graph(
            node("c", "condition", {"branches": branches}, cache={"ttl_s": 60}),
            text("a", "A"), text("b", "B"),
            end(answer="{{ a.text ?? b.text }}"),
            edges=["start > c", "c.long > a", "c.else > b", "a > done", "b > done"],
        )  # fmt: skip
        kept = Kept()
        outputs = [
            (await Bench(document, cache=kept).run(question=q)).output["answer"]
            for q in ("Why?", "Eh", "Why?")
        ]
        assert (outputs, len(kept.steps)) == (["A", "B", "A"], 2)


class TestMisses:
    async def test_failures_are_not_kept(self) -> None:
        kept = Kept()
        with pytest.raises(RunFailed):
            await Bench(asking({"ttl_s": 60}), BUSY, cache=kept).run()
        assert kept.steps == {}

    async def test_half_an_answer_is_not_kept(self) -> None:
        kept = Kept()
        with pytest.raises(RunFailed):
            await Bench(asking({"ttl_s": 60}), [TextDelta("Half")], cache=kept).run()
        assert kept.steps == {}

    async def test_only_the_attempt_that_succeeds_is_kept(self) -> None:
        kept = Kept()
        document = asking({"ttl_s": 60})
        document["nodes"][1]["retry"] = {}
        await Bench(document, BUSY, [TextDelta("Yes."), Finished()], cache=kept).run()
        assert [step.outputs["text"] for step in kept.steps.values()] == ["Yes."]


class TestChecks:
    def test_what_writes_state_is_not_cacheable(self) -> None:
        document = line(
            node("a", "note", {"field": "seen", "value": "x"}, cache={"ttl_s": 60}),
            state={"seen": {"type": "string"}},
        )
        assert codes(document) == ["not_cacheable"]

    @pytest.mark.parametrize(
        ("cache", "code", "pointer"),
        [
            ({"ttl_s": 0}, "out_of_range", "/nodes/1/cache/ttl_s"),
            ({"ttl_s": 1e9}, "out_of_range", "/nodes/1/cache/ttl_s"),
            ({"ttl_s": 1, "size": 2}, "unknown_key", "/nodes/1/cache/size"),
            ({"ttl_s": 1, "key": "{{ write.text }}"}, "not_yet_run", "/nodes/1/cache/key"),
            ({"ttl_s": 1, "key": "{{ inputs.language }}"}, "maybe_unset", "/nodes/1/cache/key"),
        ],
    )
    def test_find_what_is_wrong(self, cache: dict[str, Any], code: str, pointer: str) -> None:
        found = issues(line(llm("write") | {"cache": cache}))
        assert [(issue.code, issue.pointer) for issue in found] == [(code, pointer)]
