"""What the tests of `orrery serve` as a process look for: its services, its documents, and what is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import psutil

from app.embedded import find_leftovers
from app.embedded.leftovers import runs
from tests.trust.serving import Platform


def cluster_of(data: Path) -> Path:
    return (data / "postgres").resolve()


def server(platform: Platform, name: str) -> psutil.Process:
    """The first process of an embedded service: `postgres` or `redis-server`."""
    cluster = cluster_of(platform.data_dir)
    folder = cluster if name == "postgres" else cluster.parent / "redis"
    found = find_leftovers(name, folder)
    (head,) = [process for process in found if process.ppid() == _pid(platform)]
    return head


def children(platform: Platform) -> list[psutil.Process]:
    return psutil.Process(_pid(platform)).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[int]:
    return [process.pid for process in processes if runs(process)]


def _pid(platform: Platform) -> int:
    assert platform.process
    return platform.process.pid


def logged(platform: Platform, event: str) -> list[dict[str, Any]]:
    """The lines of the platform's log that tell of `event`."""
    lines = [line for line in platform.log.read_text().splitlines() if line.startswith("{")]
    return [entry for entry in map(json.loads, lines) if entry.get("event") == event]


def ready(platform: Platform) -> tuple[int, str]:
    """Status code of `health/ready`, and what it says; 0 where nobody answers."""
    try:
        answer = httpx2.get(f"{platform.url}/health/ready", timeout=5, trust_env=False, verify=False)
        return answer.status_code, str(answer.json()["status"])
    except (OSError, httpx2.TransportError):
        return 0, ""


def hand_in(client: httpx2.Client, collection: str, name: str, text: str) -> httpx2.Response:
    """A document as text; the collection is made when missing."""
    client.post("/collections", json={"name": collection})
    items = [{"external_id": name, "title": name, "text": text, "metadata": {}}]
    return client.post(f"/collections/{collection}/documents/text", json={"items": items})


def status_of(client: httpx2.Client, document_id: str) -> str:
    answer = client.get(f"/documents/{document_id}")
    return str(answer.json()["status"]) if answer.status_code == 200 else ""
