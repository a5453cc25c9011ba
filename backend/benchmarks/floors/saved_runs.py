"""FastAPI and LangGraph with its own PostgreSQL saver: a chain of nodes over HTTP, each step saved.

The second argument is the number of nodes. The saver's tables are in a schema of their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import psycopg
from fastapi import FastAPI, Request
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, StateGraph
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel
from typing_extensions import TypedDict

from benchmarks.serving import serve

os.environ["LANGSMITH_TRACING"] = "false"
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"

_SCHEMA = "saved_runs"


class State(TypedDict, total=False):
    question: str
    text: str


async def pass_on(state: State) -> State:
    return {"text": state.get("text", state["question"])}


def saved_chain(nodes: int, saver: AsyncPostgresSaver) -> Any:
    graph = StateGraph(State)
    last = START
    for number in range(nodes):
        graph.add_node(f"n{number}", pass_on)
        graph.add_edge(last, f"n{number}")
        last = f"n{number}"
    return graph.compile(checkpointer=saver)


class Run(BaseModel):
    input: dict[str, Any]


class Ran(BaseModel):
    id: str
    status: str
    output: dict[str, Any]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    url, nodes = sys.argv[1], int(sys.argv[2])
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}")
    async with AsyncConnectionPool(
        make_conninfo(url, options=f"-c search_path={_SCHEMA}"),
        min_size=4,
        max_size=10,
        kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
    ) as pool:
        saver = AsyncPostgresSaver(pool)  # type: ignore[arg-type]  # rows are dicts: `row_factory`
        await saver.setup()
        app.state.graph = saved_chain(nodes, saver)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/runs")
async def create(body: Run, request: Request) -> Ran:
    run_id = str(uuid4())
    final = await request.app.state.graph.ainvoke(
        {"question": body.input["question"]},
        {"configurable": {"thread_id": run_id}},
        durability="sync",
    )
    return Ran(id=run_id, status="succeeded", output={"text": final["text"]})


if __name__ == "__main__":
    serve(app)
