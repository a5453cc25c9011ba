"""Search over HTTP: modes, grouping, limits, and what is refused."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from app.core.ids import new_id
from tests.api.calls import API, add_texts, new_collection, ok, pointers, problem, work
from tests.fixtures import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXTS: list[dict[str, Any]] = [
    {"title": "Penguins", "text": "Penguins are birds that cannot fly and swim in cold water."},
    {"title": "Invoices", "text": "Invoice ZX-4711 is paid within thirty days.", "metadata": {"year": 2026}},
    {"title": "Gardens", "text": "A garden needs water in summer, most of all in the evening."},
]
LONG = {"title": "Long", "text": "The lighthouse keeper writes about the sea every night. " * 120}


async def found(client: httpx2.AsyncClient, *collections: str, **query: Any) -> list[dict[str, Any]]:
    response = await client.post(f"{API}/search", json={"collections": list(collections), **query})
    items: list[dict[str, Any]] = ok(response)["items"]
    return items


async def shelf(client: httpx2.AsyncClient, server: Running, *texts: dict[str, Any]) -> str:
    """A collection with `texts`, ready."""
    slug = await new_collection(client)
    await add_texts(client, slug, *texts)
    await work(server)
    return slug


class TestUnknownCollection:
    async def test_is_told_before_a_model_is_loaded(
        self, client: httpx2.AsyncClient, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def never(self: object, texts: object) -> None:
            raise AssertionError("embedded")

        monkeypatch.setattr(type(server.resources.embedder), "embed", never)
        monkeypatch.setattr(type(server.resources.embedder), "ready", False)
        body = {"collections": [str(new_id())], "query": "gold"}
        problem(await client.post(f"{API}/search", json=body), 404, "not_found")


class TestModes:
    @pytest.mark.parametrize("mode", ["hybrid", "dense", "keyword"])
    async def test_find_the_text_that_answers(
        self, client: httpx2.AsyncClient, server: Running, mode: str
    ) -> None:
        slug = await shelf(client, server, *TEXTS)
        items = await found(client, slug, query="Can penguins fly?", mode=mode)
        assert items[0]["title"] == "Penguins"
        assert [item["score"] for item in items] == sorted((item["score"] for item in items), reverse=True)

    async def test_keyword_finds_nothing_without_a_common_word(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        slug = await shelf(client, server, *TEXTS)
        assert await found(client, slug, query="xylophone", mode="keyword") == []

    async def test_dense_finds_by_meaning(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await shelf(client, server, *TEXTS)
        items = await found(client, slug, query="flightless animals of the Antarctic", mode="dense")
        assert items[0]["title"] == "Penguins"

    async def test_hybrid_is_the_default(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await shelf(client, server, *TEXTS)
        assert await found(client, slug, query="ZX-4711") == await found(
            client, slug, query="ZX-4711", mode="hybrid"
        )


class TestItems:
    async def test_carry_the_place_in_the_document(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await shelf(client, server, LONG)
        for item in await found(client, slug, query="lighthouse"):
            read = ok(await client.get(f"{API}/documents/{item['document_id']}/text"))
            assert item["text"] == read["text"][item["start"] : item["end"]]
            assert item["chunk_id"] in {chunk["id"] for chunk in read["chunks"]}

    async def test_carry_what_is_known_of_the_document(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        slug = await shelf(client, server, TEXTS[1] | {"external_id": "inv-1"})
        (item,) = await found(client, slug, query="invoice")
        assert (item["external_id"], item["title"], item["metadata"]) == ("inv-1", "Invoices", {"year": 2026})


class TestTopK:
    async def test_limits_the_answer(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await shelf(client, server, *TEXTS)
        assert len(await found(client, slug, query="water", mode="dense", top_k=2)) == 2
        assert len(await found(client, slug, query="water", mode="dense", top_k=200)) == 3

    @pytest.mark.parametrize("top_k", [0, -1, 201, "many", 1.5])
    async def test_out_of_range_is_refused(self, client: httpx2.AsyncClient, top_k: object) -> None:
        body = {"collections": ["any"], "query": "water", "top_k": top_k}
        assert pointers(await client.post(f"{API}/search", json=body)) == ["/body/top_k"]


class TestGroupBy:
    async def test_chunk_shows_several_of_one_document(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        slug = await shelf(client, server, LONG, *TEXTS)
        items = await found(client, slug, query="lighthouse keeper")
        assert len({item["chunk_id"] for item in items}) == len(items)
        assert [item["title"] for item in items].count("Long") > 1

    @pytest.mark.parametrize("mode", ["hybrid", "dense", "keyword"])
    async def test_document_shows_each_once(
        self, client: httpx2.AsyncClient, server: Running, mode: str
    ) -> None:
        slug = await shelf(client, server, LONG, *TEXTS)
        items = await found(client, slug, query="lighthouse water", mode=mode, group_by="document")
        titles = [item["title"] for item in items]
        assert "Long" in titles
        assert len(titles) == len(set(titles))


class TestCollections:
    async def test_are_named_by_id_or_slug(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await shelf(client, server, *TEXTS)
        collection_id = ok(await client.get(f"{API}/collections/{slug}"))["id"]
        by_slug = await found(client, slug, query="penguins")
        assert await found(client, collection_id, query="penguins") == by_slug
        assert await found(client, slug, collection_id, query="penguins") == by_slug

    async def test_are_searched_together(self, client: httpx2.AsyncClient, server: Running) -> None:
        one, other = await shelf(client, server, TEXTS[0]), await shelf(client, server, TEXTS[2])
        items = await found(client, one, other, query="water")
        assert {item["title"] for item in items} == {"Penguins", "Gardens"}

    async def test_that_are_empty_answer_nothing(self, client: httpx2.AsyncClient) -> None:
        assert await found(client, await new_collection(client), query="water") == []

    async def test_that_are_unknown_are_404(self, client: httpx2.AsyncClient, server: Running) -> None:
        body = {"collections": [await new_collection(client), "nowhere"], "query": "water"}
        assert (
            "'nowhere'" in problem(await client.post(f"{API}/search", json=body), 404, "not_found")["detail"]
        )

    async def test_that_are_not_named_are_missed(self, client: httpx2.AsyncClient) -> None:
        none: tuple[Any, ...] = ([], None)
        for collections in none:
            body = {"collections": collections, "query": "water"}
            assert pointers(await client.post(f"{API}/search", json=body)) == ["/body/collections"]


class TestQuery:
    @pytest.mark.parametrize(
        "query", ["?", "   ", "' OR 1=1 --", "日本語の質問", "🌱", "a" * 10_000, "%_\\", "the of and"]
    )
    @pytest.mark.parametrize("mode", ["hybrid", "keyword"])
    async def test_of_any_text_is_answered(
        self, client: httpx2.AsyncClient, server: Running, query: str, mode: str
    ) -> None:
        slug = await shelf(client, server, TEXTS[0])
        await found(client, slug, query=query, mode=mode)

    async def test_that_is_empty_or_too_long_is_refused(self, client: httpx2.AsyncClient) -> None:
        for query in ("", "a" * 10_001, "a\x00b"):
            body = {"collections": ["any"], "query": query}
            assert pointers(await client.post(f"{API}/search", json=body)) == ["/body/query"]


class TestFilters:
    async def test_are_refused_instead_of_ignored(self, client: httpx2.AsyncClient) -> None:
        filters = {"and": [{"field": "year", "op": "eq", "value": 2026}]}
        body = {"collections": [await new_collection(client)], "query": "water", "filters": filters}
        response = await client.post(f"{API}/search", json=body)
        assert pointers(response) == ["/body/filters"]
        assert "not supported" in response.json()["detail"]

    async def test_of_null_are_none(self, client: httpx2.AsyncClient) -> None:
        assert await found(client, await new_collection(client), query="water", filters=None) == []

    @pytest.mark.parametrize("field", ["rerank", "explain", "limit"])
    async def test_so_are_unknown_fields(self, client: httpx2.AsyncClient, field: str) -> None:
        body = {"collections": ["any"], "query": "water", field: 1}
        assert pointers(await client.post(f"{API}/search", json=body)) == [f"/body/{field}"]
