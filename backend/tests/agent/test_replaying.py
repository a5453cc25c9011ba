"""Replays in memory: what counts as the same, what a replay says where it is not, and where a record ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from ag_ui.core import CustomEvent, TextMessageContentEvent

from app.agent.core.interfaces import StepRecord
from app.agent.graph.recording import RecordedEvent, Recording, lost_tries
from app.agent.graph.replaying import RecordEnds, Replay, ReplayDiverged


def custom(name: str, path: str = "", **value: Any) -> RecordedEvent:
    return RecordedEvent(path, "CUSTOM", {"type": "CUSTOM", "name": name, "value": value})


def text(delta: str, path: str = "say") -> RecordedEvent:
    body = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": delta}
    return RecordedEvent(path, "TEXT_MESSAGE_CONTENT", body)


def error(code: str) -> RecordedEvent:
    return RecordedEvent("", "RUN_ERROR", {"type": "RUN_ERROR", "code": code, "message": code})


def step(path: str, **changes: Any) -> StepRecord:
    values = {"node_path": path, "node_type": "llm", "visit": 1, "status": "succeeded", "started_at_ms": 0}
    return StepRecord(**values | {"duration_ms": 1, "attempts": 1, "output": {}} | changes)  # type: ignore[arg-type]


class Score:
    """A recording, and what a replay of it has told."""

    def __init__(self, *events: RecordedEvent, steps: Sequence[StepRecord] = ()) -> None:
        self.recording = Recording({one.key: one for one in steps}, events)
        self.told: list[int] = []

    def replay(self) -> Replay:
        return Replay(self.recording, lambda place, _: self.told.append(place))


class TestEvents:
    async def test_are_told_in_the_order_of_then(self) -> None:
        score = Score(custom("a", "one"), custom("b", "two"), custom("c", "one"))
        replay = score.replay()

        async def one() -> None:
            for name in ("a", "c"):
                await replay.emit(custom(name, "one"), node_path="one")

        async def two() -> None:
            await replay.emit(custom("b", "two"), node_path="two")

        async def both() -> None:
            await asyncio.gather(two(), one())

        await replay.guarded(both())
        assert score.told == [0, 1, 2]

    async def test_are_the_same_with_other_ids_and_times(self) -> None:
        score = Score(custom("node.finished", "n", duration_ms=5, message_id="a"))
        replay = score.replay()
        now = CustomEvent(name="node.finished", value={"duration_ms": 7, "message_id": "b"})
        await replay.guarded(replay.emit(now, node_path="n"))
        assert score.told == [0]

    async def test_with_another_value_diverge(self) -> None:
        replay = Score(custom("note", "n", is_=1)).replay()
        with pytest.raises(ReplayDiverged) as failure:
            await replay.guarded(replay.emit(custom("note", "n", is_=2), node_path="n"))
        assert failure.value.detail == ("at event 1: note of node 'n', /value/is_: recorded 1; now 2")

    async def test_beyond_the_record_of_a_run_that_succeeded_diverge(self) -> None:
        replay = Score().replay()
        with pytest.raises(ReplayDiverged, match="where nothing was recorded"):
            await replay.guarded(replay.emit(custom("more", "n"), node_path="n"))

    async def test_that_do_not_come_diverge(self) -> None:
        replay = Score(custom("a", "one"), custom("b", "two")).replay()

        async def only_the_second() -> None:
            await replay.emit(custom("b", "two"), node_path="two")

        with pytest.raises(ReplayDiverged, match=r"at event 1: recorded a of node 'one'.*does not come"):
            await replay.guarded(only_the_second())

    async def test_of_the_process_are_told_by_themselves(self) -> None:
        score = Score(custom("a", "n"), custom("run.suspended"), custom("run.resumed"), custom("b", "n"))
        replay = score.replay()

        async def engine() -> None:
            for name in ("a", "b"):
                await replay.emit(custom(name, "n"), node_path="n")

        await replay.guarded(engine())
        assert score.told == [0, 1, 2, 3]


class TestText:
    @pytest.mark.parametrize("recorded", [("one two",), ("one", " two"), ("o", "ne t", "wo")])
    @pytest.mark.parametrize("now", [("one two",), ("one ", "two"), ("o", "n", "e two")])
    async def test_is_the_same_however_it_was_divided(
        self, recorded: tuple[str, ...], now: tuple[str, ...]
    ) -> None:
        score = Score(*map(text, recorded), custom("end", "say"))
        replay = score.replay()

        async def engine() -> None:
            for delta in now:
                event = TextMessageContentEvent(message_id="other", delta=delta)
                await replay.emit(event, node_path="say")
            await replay.emit(custom("end", "say"), node_path="say")

        await replay.guarded(engine())
        assert score.told == list(range(len(recorded) + 1))

    async def test_that_is_shorter_than_recorded_diverges(self) -> None:
        replay = Score(text("one two"), custom("end", "say")).replay()

        async def engine() -> None:
            await replay.emit(TextMessageContentEvent(message_id="m", delta="one"), node_path="say")
            await replay.emit(custom("end", "say"), node_path="say")

        with pytest.raises(ReplayDiverged, match="one two"):
            await replay.guarded(engine())


class TestAnswer:
    async def test_is_told_with_all_that_was_inside(self) -> None:
        finished = custom("node.finished", "n")
        score = Score(custom("node.started", "n"), custom("x", "n/1"), finished, steps=[step("n")])
        replay = score.replay()
        done = await replay.guarded(replay.again("n", 1, asked="hash"))
        assert (done, score.told) == (step("n"), [0, 1, 2])

    async def test_to_another_question_diverges(self) -> None:
        replay = Score(custom("node.finished", "n"), steps=[step("n", request_hash="then")]).replay()
        with pytest.raises(ReplayDiverged, match="'n' is asked something else than was recorded"):
            await replay.guarded(replay.again("n", 1, asked="now"))

    async def test_that_never_came_ends_the_record(self) -> None:
        score = Score(custom("node.started", "n"), steps=[step("n", status="started", output=None)])
        replay = score.replay()
        with pytest.raises(RecordEnds) as ended:
            await replay.guarded(replay.again("n", 1, asked="hash"))
        assert (ended.value.event, score.told) == (None, [0])

    async def test_that_never_came_because_of_a_cancel_ends_with_that(self) -> None:
        score = Score(custom("node.started", "n"), error("cancelled"))
        replay = score.replay()
        with pytest.raises(RecordEnds) as ended:
            await replay.guarded(replay.again("n", 1, asked="hash"))
        assert (ended.value.event, score.told) == (error("cancelled"), [0, 1])

    def test_of_an_earlier_visit_counts_for_a_later_one(self) -> None:
        recording = Recording({("n", 1, 0): step("n")}, ())

        async def looked() -> StepRecord | None:
            return Replay(recording, lambda *_: None).told_before("n", 3)

        assert asyncio.run(looked()) == step("n")


class TestLostTries:
    def test_are_what_a_dead_process_told_of_a_node_that_was_begun_again(self) -> None:
        events = [
            custom("node.started", "n"),
            text("half", "n"),
            custom("node.started", "m"),
            custom("node.finished", "m"),
            custom("run.continued"),
            custom("message.discarded", "n"),
            custom("node.started", "n"),
            custom("node.finished", "n"),
        ]
        assert lost_tries(events) == {0, 1, 5}

    def test_are_none_where_the_node_was_never_begun_again(self) -> None:
        events = [custom("node.started", "n"), custom("run.continued"), error("process_died")]
        assert lost_tries(events) == frozenset()
