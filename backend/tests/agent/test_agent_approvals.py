"""Tool calls of an `agent` node that a person must agree to, and agents that it calls."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from app.agent.core.interfaces import ModelError, ToolResult
from app.agent.core.interrupts import Suspended
from app.agent.graph.executable import ExecutableAgent
from app.agent.graph.ports import Past
from tests.agent.agent_calls import document, wants
from tests.agent.documents import end, graph, node
from tests.agent.doubles import COMPILER, Bench, Script, SteppedClock, says
from tests.agent.interrupts import Inbox
from tests.agent.test_inner_graphs import Team
from tests.agent.test_tool_node import SCHEMA, SUNNY, Listed, Shelf

SKY = {"tools": {"sky": "sky"}}
ROME, OSLO = ("weather", {"city": "Rome"}), ("weather", {"city": "Oslo"})


class Desk:
    """One run of an agent, taken up again and again, with its journal and its inbox."""

    def __init__(self, *scripts: Script, shelf: Shelf | None = None, team: Any = None, **config: Any) -> None:
        self.tool = Listed([SUNNY])
        clock = SteppedClock()
        self.inbox = Inbox(clock)
        more = {"agents": team} if team else {}
        made = document(**({"bindings": SKY, "tools": ["sky"]} | config))
        self.run = Bench(
            made, *scripts, tools=shelf or Shelf(sky=[self.tool]), interrupts=self.inbox, clock=clock, **more
        )
        self.inbox.log = self.run.log
        self.taken_up = 0

    async def go_on(self) -> Any:
        """The output, or None where it waits. What was journalled so far is known, as to another process."""
        log = self.run.log
        log.known = {step.key: step for step in [*log.begun, *log.steps]}
        past = Past(continued=self.taken_up, begun=bool(self.taken_up), suspended=bool(self.taken_up))
        self.taken_up += 1
        try:
            return (await self.run.given({"question": "Why?"}, past=past)).output
        except Suspended:
            return None

    def decide(self, choice: str, city: str = "Rome", **data: Any) -> None:
        (asked,) = [
            one
            for one in self.inbox.open_ones
            if one.question and one.question.prefill["arguments"]["city"] == city
        ]
        self.inbox.answer_one(asked.id, choice, **data)


class TestApproval:
    async def test_is_asked_for_before_the_call(self) -> None:
        desk = Desk(wants(ROME), says("Sunny."), approval=["weather"])
        assert await desk.go_on() is None
        (asked,) = desk.inbox.open_ones
        assert asked.question is not None
        assert (asked.question.kind, asked.question.choices) == ("approval", ("approve", "reject"))
        assert asked.question.prefill == {"arguments": {"city": "Rome", "days": 1}}
        assert "'weather'" in asked.question.message
        (told,) = desk.run.log.custom("interrupt")
        started = next(event for event in desk.run.log.events if event.type.value == "TOOL_CALL_START")
        assert (told["tool"], told["tool_call_id"]) == ("weather", started.tool_call_id)
        assert desk.tool.calls == []

    async def test_granted(self) -> None:
        desk = Desk(wants(ROME), says("Sunny."), approval="all")
        await desk.go_on()
        desk.decide("approve")
        output = await desk.go_on()
        (call,) = output["tool_calls"]
        assert (output["answer"], call["approved"], call["answered_by"]) == (
            "Sunny.",
            True,
            "ann@example.org",
        )
        assert (len(desk.tool.calls), len(desk.run.model.requests)) == (1, 2)

    async def test_rejected_with_a_reason_that_the_model_is_told(self) -> None:
        desk = Desk(wants(ROME), says("Very well."), approval=["sky"])
        await desk.go_on()
        desk.decide("reject", reason="not on a Sunday")
        output = await desk.go_on()
        (call,) = output["tool_calls"]
        assert (desk.tool.calls, call["approved"], call["error"]["code"]) == ([], False, "rejected")
        assert "not on a Sunday" in desk.run.model.requests[1].messages[-1].content

    async def test_arguments_may_be_changed(self) -> None:
        desk = Desk(wants(ROME), says("Sunny."), approval="all")
        await desk.go_on()
        desk.decide("approve", arguments={"city": "Oslo", "days": 2})
        output = await desk.go_on()
        assert desk.tool.calls[0][0] == {"city": "Oslo", "days": 2}
        assert output["tool_calls"][0]["arguments"] == {"city": "Oslo", "days": 2}
        assert "A person changed the arguments" in desk.run.model.requests[1].messages[-1].content

    async def test_is_of_what_was_shown_whatever_the_tool_has_as_defaults_by_now(self) -> None:
        desk = Desk(wants(ROME), says("Sunny."), approval="all")
        await desk.go_on()
        days = {"days": {"type": "integer", "default": 9}}
        desk.tool.schema = SCHEMA | {"properties": SCHEMA["properties"] | days, "required": ["city", "days"]}
        desk.decide("approve", arguments={"city": "Rome", "days": 1})
        (call,) = (await desk.go_on())["tool_calls"]
        assert desk.tool.calls[0][0] == {"city": "Rome", "days": 1}
        assert (call["approved"], call["text"]) == (True, "Sunny.")

    async def test_of_a_person_who_was_asked_holds_though_the_tool_needs_none_any_more(self) -> None:
        desk = Desk(wants(ROME), says("Very well."), approval=["sky"])
        await desk.go_on()
        desk.decide("reject")
        desk.run.agent = ExecutableAgent(COMPILER.compile(document(bindings=SKY, tools=["sky"])))
        output = await desk.go_on()
        assert (desk.tool.calls, output["tool_calls"][0]["error"]["code"]) == ([], "rejected")

    async def test_of_a_call_that_was_under_way_is_not_asked_for_again(self) -> None:
        desk = Desk(wants(ROME), says("Sunny."), approval="all")
        await desk.go_on()
        desk.decide("approve", arguments={"city": "Oslo", "days": 2})
        await desk.go_on()
        log = desk.run.log
        (begun,) = (step for step in log.begun if step.call == 2)
        model = next(step for step in log.steps if step.call == 1)
        again = Desk(says("Sunny."), approval="all")
        copied = [replace(step, source_run_id="another") for step in (model, begun)]
        again.run.log.known = {step.key: step for step in copied}
        output = (await again.run.given({"question": "Why?"})).output
        (call,) = output["tool_calls"]
        assert again.inbox.open_ones == []
        assert (call["arguments"], call["approved"]) == ({"city": "Oslo", "days": 2}, True)
        assert again.tool.calls[0][0] == {"city": "Oslo", "days": 2}

    async def test_of_several_calls_each_waits_for_its_own(self) -> None:
        desk = Desk(wants(ROME, OSLO), says("Done."), approval="all")
        assert await desk.go_on() is None
        assert len(desk.inbox.open_ones) == 2
        desk.decide("reject", "Oslo")
        assert await desk.go_on() is None
        desk.decide("approve", "Rome")
        output = await desk.go_on()
        assert [call["approved"] for call in output["tool_calls"]] == [True, False]
        assert [call[0]["city"] for call in desk.tool.calls] == ["Rome"]
        assert len(desk.run.log.custom("interrupt")) == 2

    async def test_calls_that_need_none_are_made_meanwhile(self) -> None:
        free = Listed([ToolResult(None, "High.")], name="tides", effect="read")
        shelf = Shelf(sky=[Listed([SUNNY]), free])
        desk = Desk(
            wants(ROME, ("tides", {"city": "Rome"})), says("Done."), shelf=shelf, approval=["weather"]
        )
        assert await desk.go_on() is None
        assert len(free.calls) == 1
        desk.decide("approve")
        assert (await desk.go_on())["answer"] == "Done."
        assert len(free.calls) == 1

    async def test_one_after_the_other_waits_for_the_first(self) -> None:
        desk = Desk(wants(ROME, OSLO), says("Done."), approval="all", parallel_tool_calls=False)
        await desk.go_on()
        assert len(desk.inbox.open_ones) == 1
        desk.decide("approve", "Rome")
        await desk.go_on()
        desk.decide("approve", "Oslo")
        assert (await desk.go_on())["answer"] == "Done."

    async def test_a_tool_that_needs_it_asks_in_any_case(self) -> None:
        desk = Desk(wants(ROME), says("Done."), shelf=Shelf(sky=[Listed([SUNNY], needs_approval=True)]))
        assert await desk.go_on() is None

    async def test_arguments_that_do_not_fit_are_told_and_nobody_is_asked(self) -> None:
        desk = Desk(wants(("weather", {})), says("Sorry."), approval="all")
        assert (await desk.go_on())["tool_calls"][0]["error"]["code"] == "invalid_arguments"
        assert desk.inbox.all == {}

    async def test_nobody_answers_in_time(self) -> None:
        desk = Desk(wants(ROME), says("Very well."), approval="all", answer_within_s=60)
        assert await desk.go_on() is None
        desk.run.clock.slept.append(61)
        output = await desk.go_on()
        assert output["tool_calls"][0]["error"] == {
            "code": "rejected", "message": "nobody agreed to the call in time",
        }  # fmt: skip

    async def test_stays_given_when_the_node_is_tried_again(self) -> None:
        desk = Desk(
            wants(ROME), [ModelError("rate_limit", "slow down")], says("Sunny."),
            approval="all", retry={"max_attempts": 2},
        )  # fmt: skip
        await desk.go_on()
        desk.decide("approve")
        assert (await desk.go_on())["answer"] == "Sunny."
        assert (len(desk.tool.calls), len(desk.inbox.all)) == (1, 1)


def helper(*nodes: dict[str, Any], answer: str) -> Team:
    """A published agent that takes a draft."""
    ids = ["start", *(one["id"] for one in nodes), "done"]
    made = graph(
        *nodes, end(answer=answer), edges=[f"{a} > {b}" for a, b in pairwise(ids)],
        interface={"answer": "answer"},
    )  # fmt: skip
    taken = {"type": "object", "properties": {"draft": {"type": "string"}}, "required": ["draft"]}
    return Team(helper=made | {"inputs": taken})


def calling(*scripts: Script, team: Team) -> Desk:
    return Desk(*scripts, team=team, bindings={"agents": {"helper": "helper"}}, agents=["helper"], tools=[])


A, B = ("helper", {"draft": "a"}), ("helper", {"draft": "b"})


class TestAgents:
    async def test_are_called_with_their_inputs_each_below_a_path_of_its_own(self) -> None:
        team = helper(node("say", "template", {"text": "{{ inputs.draft }}!"}), answer="{{ say.text }}")
        desk = calling(wants(A, B), says("Done."), team=team)
        output = await desk.go_on()
        assert [call["text"] for call in output["tool_calls"]] == ["a!", "b!"]
        assert desk.run.model.requests[0].tools[0].parameters["required"] == ["draft"]
        started = {
            path for path, event in desk.run.log.entries if getattr(event, "name", "") == "node.started"
        }
        assert {"act/2/say", "act/3/say"} <= started

    async def test_ask_people_themselves(self) -> None:
        team = helper(
            node("ask", "human", {"message": "{{ inputs.draft }}?"}), answer="{{ ask.answered_by }}"
        )
        desk = calling(wants(A, B), says("Done."), team=team)
        assert await desk.go_on() is None
        assert sorted(one.node_path for one in desk.inbox.open_ones) == ["act/2/ask", "act/3/ask"]
        desk.inbox.answer("act/3/ask")
        assert await desk.go_on() is None
        desk.inbox.answer("act/2/ask")
        output = await desk.go_on()
        assert [call["text"] for call in output["tool_calls"]] == ["ann@example.org"] * 2
        assert len(desk.run.model.requests) == 2

    async def test_that_fail_are_told(self) -> None:
        team = helper(
            node("say", "extract", {"model": "main", "input": " ", "output_schema": {"type": "object"}}),
            answer="never",
        )
        desk = calling(wants(A), says("It failed."), team=team)
        output = await desk.go_on()
        assert (output["answer"], output["tool_calls"][0]["error"]["code"]) == ("It failed.", "bad_request")

    async def test_that_fail_in_one_branch_need_no_answer_in_another(self) -> None:
        made = graph(
            node("ask", "human", {"message": "Sure?"}),
            node("post", "nap", {"fail": True}),
            end(answer="Done."),
            edges=["start > ask", "start > post", "ask > done", "post > done"],
        )
        desk = calling(
            wants(("helper", {})), says("It failed."), team=Team(helper=made | {"inputs": {"type": "object"}})
        )
        assert (await desk.go_on())["tool_calls"][0]["error"]["code"] == "woken"
        assert (desk.inbox.open_ones, desk.inbox.withdrawn) == ([], ["act/2/ask"])

    async def test_that_fail_leave_the_questions_of_other_calls_open(self) -> None:
        made = graph(
            node("pick", "condition", {"branches": [{"handle": "ask", "when": "{{ inputs.draft }} == 'a'"}]}),
            node("ask", "human", {"message": "Sure?"}),
            node("post", "nap", {"fail": True}),
            end(answer="Done."),
            edges=["start > pick", "pick.ask > ask", "pick.else > post", "ask > done", "post > done"],
        )
        taken = {"type": "object", "properties": {"draft": {"type": "string"}}, "required": ["draft"]}
        desk = calling(wants(A, B), says("Done."), team=Team(helper=made | {"inputs": taken}))
        assert await desk.go_on() is None
        assert [one.node_path for one in desk.inbox.open_ones] == ["act/2/ask"]

    async def test_what_they_write_is_not_shown_as_the_answer(self) -> None:
        team = helper(
            node(
                "say", "llm", {"model": "main", "prompt": [{"role": "user", "content": "{{ inputs.draft }}"}]}
            ),
            answer="{{ say.text }}",
        )
        desk = calling(wants(A), says("inner"), says("outer"), team=team)
        assert (await desk.go_on())["tool_calls"][0]["text"] == "inner"
        assert desk.run.log.text == "outer"


class TestResumed:
    async def test_a_decision_that_was_not_taken_up_holds_in_the_run_that_resumes_it(self) -> None:
        desk = Desk(wants(ROME), says("Very well."), approval="all")
        await desk.go_on()
        desk.decide("reject", reason="never")
        known = {step.key: replace(step, source_run_id="r") for step in desk.run.log.steps if step.call}
        desk.run.log.known = known
        past = Past(continued=0, resumes=("r",))
        result = await desk.run.given({"question": "Why?"}, run_id="r-2", past=past)
        (call,) = result.output["tool_calls"]
        assert (desk.tool.calls, call["error"]["code"], desk.inbox.open_ones) == ([], "rejected", [])

    async def test_a_decision_on_another_call_does_not(self) -> None:
        desk = Desk(wants(ROME), wants(OSLO), approval="all")
        await desk.go_on()
        desk.decide("approve")
        desk.run.log.known = {}
        with pytest.raises(Suspended):
            await desk.run.given({"question": "Why?"}, run_id="r-2", past=Past(resumes=("r",)))
        (asked,) = desk.inbox.open_ones
        assert asked.question is not None
        assert asked.question.prefill == {"arguments": {"city": "Oslo", "days": 1}}
        assert desk.tool.calls == []
