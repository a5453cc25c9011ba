"""Values that must turn up nowhere, and all the places where they could."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import psutil
from redis import Redis

from tests.trust.serving import Platform


def forms(text: str) -> list[bytes]:
    """`text` as it is, as hexadecimal digits, and within anything in Base64."""
    plain = text.encode()
    encoded = [base64.b64encode(b"\0" * offset + plain)[4:-4] for offset in range(3)]
    return [plain, plain.hex().encode(), plain.hex().upper().encode(), *encoded]


def middle(text: str) -> str:
    """What is looked for, so that a shortened value is found too."""
    return text[len(text) // 8 : -(len(text) // 8)]


@dataclass(slots=True)
class Cage:
    """The canaries that were let in, by name. Those made here have a mark in common, and are no slugs."""

    birds: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid4().hex)
    marks: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.marks += forms(self.mark[4:-4])

    def new(self, name: str) -> str:
        self.birds[name] = f"0{uuid4().hex[:16]}{self.mark}{uuid4().hex[:16]}"
        return self.birds[name]

    def put(self, name: str, value: str) -> None:
        """A secret that somebody else has made."""
        self.birds[name] = value
        self.marks += forms(middle(value))

    def seen_in(self, text: bytes) -> list[str]:
        """Names of those that `text` holds, by their own middle or, where only the mark is left, all."""
        if not any(mark in text for mark in self.marks):
            return []
        own = [
            name for name, value in self.birds.items() if any(form in text for form in forms(middle(value)))
        ]
        return own or ["a part of one"]


def crawl(client: httpx2.Client, examples: Mapping[str, str]) -> Iterator[tuple[str, httpx2.Response]]:
    """Every GET route of the API with the `examples` of its path parameters, and the documentation."""
    description = client.get("/openapi.json").raise_for_status()
    yield "/openapi.json", description
    for path, methods in description.json()["paths"].items():
        if "get" in methods:
            names = re.findall(r"{(\w+)}", path)
            yield path, client.get(path.format_map({name: examples.get(name, "none") for name in names}))
    yield "/docs", client.get("/docs").raise_for_status()


def table_dump(owner_url: str) -> dict[str, bytes]:
    """Every table with all columns of all rows as text (bytes as hexadecimal digits), and running queries."""

    async def dump() -> dict[str, bytes]:
        connection = await asyncpg.connect(owner_url)
        try:
            names = (
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            )
            tables = [row["relname"] for row in await connection.fetch(names)]
            rows = {
                name: await connection.fetch(f'SELECT t::text AS line FROM "{name}" t') for name in tables
            }
            rows["pg_stat_activity"] = await connection.fetch("SELECT query AS line FROM pg_stat_activity")
        finally:
            await connection.close()
        return {name: "\n".join(row["line"] or "" for row in found).encode() for name, found in rows.items()}

    return asyncio.run(dump())


def broker_dump(url: str) -> bytes:
    with Redis.from_url(url) as broker:
        return b"\n".join(broker.dump(key) or b"" for key in broker.scan_iter())


def command_lines() -> bytes:
    """Of every process on this machine, as `ps` shows them."""
    lines: list[Any] = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    return "\n".join(" ".join(line or ()) for line in lines).encode()


def files(platform: Platform, *, but: str) -> Iterator[tuple[Path, bytes]]:
    """All files of the data folder outside of the folder `but`, by their path in it."""
    for path in sorted(platform.data_dir.rglob("*")):
        place = path.relative_to(platform.data_dir)
        if place.parts[0] == but or path.is_symlink() or not path.is_file():
            continue
        try:
            yield place, path.read_bytes()
        except FileNotFoundError:  # PostgreSQL recycles its log
            continue
