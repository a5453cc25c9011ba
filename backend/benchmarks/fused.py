"""What nodes cost that need no step of their own: ten texts in a row over HTTP, beside one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from benchmarks.children import data_folder, platform
from benchmarks.registry import Report, Scale, benchmark
from benchmarks.run import FLOOR, GREETING, compared, publish, waiting

_AIM = 1.3
_NODES = 10
_INPUT = {"name": "world"}


@benchmark("fused", floor="the same run, also ours, with one such node")
async def fused(scale: Scale) -> Report:
    """Each of the ten has its events; what they share is the step, its checkpoint and its commit."""
    count = scale.pick(8, 200, 1000)
    with data_folder() as data_dir, platform(data_dir) as ours:
        async with ours.client() as client:
            await publish(client, "one", GREETING)
            await publish(client, "ten", texts(_NODES))
            what = f"a chain of {_NODES} pure nodes"
            one = waiting(client, "one", _INPUT)
            sends = {what: waiting(client, "ten", _INPUT), FLOOR: one}
            return await compared(ours, ours.child.process, sends, dict.fromkeys(sends, count), aim=_AIM)


def texts(count: int) -> dict[str, Any]:
    """`start`, texts that each take the one before, `end`."""
    ids = ["start", *(f"text_{number}" for number in range(count)), "done"]
    said = ["Hello, {{ inputs.name }}!", *(f"{{{{ {name}.text }}}}" for name in ids[1:-1])]
    middle = [
        {"id": name, "type": "template", "config": {"text": text}}
        for name, text in zip(ids[1:-1], said, strict=False)
    ]
    return GREETING | {
        "nodes": [
            {"id": "start", "type": "start"},
            *middle,
            {"id": "done", "type": "end", "config": {"output": {"text": said[-1]}}},
        ],
        "edges": [{"source": a, "target": b} for a, b in pairwise(ids)],
    }
