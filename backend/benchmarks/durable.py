"""What it costs that every step of a run is stored before the next one begins: five nodes over HTTP."""

from __future__ import annotations

from benchmarks.children import data_folder, platform, server
from benchmarks.compile import chain
from benchmarks.registry import Report, Scale, benchmark
from benchmarks.run import FLOOR, compared, publish, sender, waiting

_AIM = 0.7
_NODES = 5
_INPUT = {"question": "world"}


@benchmark("durable", floor='FastAPI, LangGraph with five nodes and its PostgreSQL saver, durability="sync"')
async def durable(scale: Scale) -> Report:
    """Ours calls a model in three of its nodes and tells every event; the floor's nodes do nothing."""
    count = scale.pick(8, 100, 1000)
    with data_folder() as data_dir, platform(data_dir) as ours:
        url = ours.services.migration_url
        with server("benchmarks.floors.saved_runs", url, str(_NODES), data_dir=data_dir) as bare:
            async with ours.client() as client, bare.client() as bare_client:
                await publish(client, "steps", chain(_NODES))
                what = f"{_NODES} nodes, each step stored"
                sends = {
                    what: waiting(client, "steps", _INPUT),
                    FLOOR: sender(bare_client, "/runs", {"input": _INPUT}),
                }
                sent = {what: count, FLOOR: 2 * count}
                return await compared(ours, bare.process, sends, sent, aim=_AIM)
