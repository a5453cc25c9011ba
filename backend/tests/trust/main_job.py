"""The main job from an empty data folder, to be run where there is no network.

    python -m tests.trust.main_job DATA_DIR

prints what came of it, and what the kernel counted of attempts to get out.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import httpx2

from tests.graphs import asking_graph
from tests.trust.closed import attempts
from tests.trust.corpus import make_collection, upload, wait_for
from tests.trust.serving import Platform

NOTE = b"The harbour master keeps the key of the lighthouse. It opens at six in the morning."


class Listener:
    """Stands where a tracing service would be; counts who comes."""

    def __init__(self) -> None:
        self.calls = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def _listen(self) -> None:
        while True:
            connection, _ = self.socket.accept()
            self.calls += 1
            connection.close()


def tracing(url: str) -> dict[str, str]:
    """What somebody may have set for other programs on this machine."""
    switches = ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING", "LANGCHAIN_TRACING_V2")
    return dict.fromkeys(switches, "true") | {
        "LANGCHAIN_HANDLER": "langchain",
        "LANGSMITH_API_KEY": "lsv2_pt_somebody-elses",
        "LANGSMITH_ENDPOINT": url,
        "LANGCHAIN_API_KEY": "lsv2_pt_somebody-elses",
        "LANGCHAIN_ENDPOINT": url,
        "ORT_DISABLE_TELEMETRY": "0",
        "HF_HUB_DISABLE_TELEMETRY": "0",
        "DO_NOT_TRACK": "0",
    }


def run(data_dir: Path) -> dict[str, Any]:
    listener = Listener()
    settings = tracing(listener.url) | {"PYTHONPATH": os.environ["PYTHONPATH"]}
    platform = Platform(data_dir, settings)
    platform.start()
    try:
        with platform.client() as client:
            found, answer = work(client)
    finally:
        code = platform.stop()
    return {
        "found": found,
        "answer": answer,
        "code": code,
        "traces": listener.calls,
        "attempts": attempts(),
    }


def work(client: httpx2.Client) -> tuple[str, str]:
    """Text of the best hit of a search, and the answer of an agent."""
    taken = upload(client, make_collection(client, "notes"), [("note.txt", NOTE)])
    wait_for(client, taken, done=1)
    question = "Who keeps the key of the lighthouse?"
    body = {"collections": ["notes"], "query": question}
    found = client.post("/search", json=body).raise_for_status().json()["items"]
    graph = asking_graph("default-chat", collection="notes")
    client.post("/agents", json={"name": "Asker", "slug": "asker", "graph": graph}).raise_for_status()
    client.post("/agents/asker/publish").raise_for_status()
    asked = client.post("/agents/asker/runs", json={"input": {"name": question}}).raise_for_status().json()
    if asked["status"] != "succeeded":
        raise AssertionError(asked)
    return found[0]["text"], asked["output"]["text"]


if __name__ == "__main__":
    print(json.dumps(run(Path(sys.argv[1]))))  # noqa: T201
