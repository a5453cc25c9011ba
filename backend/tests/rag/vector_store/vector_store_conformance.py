"""What every `VectorStore` must do: a provider's tests inherit `VectorStoreConformance`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID

import numpy as np
import pytest

from app.core.ids import stable_id
from app.rag.sparse import encode_document, query_terms
from app.rag.types import Hit, SparseVector, Totals, VectorEntry, VectorStore

DOCUMENT, VERSION, NEXT_VERSION = (stable_id("document", part) for part in ("", "1", "2"))
EAST, NORTH, WEST = (np.array(axes, dtype=np.float32) for axes in ((1, 0, 0), (0, 1, 0), (-1, 0, 0)))
PAYLOAD = {"shelf": 1}


class Index(Protocol):
    """One empty index: what is written to it, and how it is looked at."""

    @property
    def store(self) -> VectorStore: ...

    async def dense(self, vector: Any) -> list[Hit]:
        """Every chunk that is searched, the nearest first."""
        ...

    async def keyword(self, query: SparseVector) -> list[Hit]: ...

    async def frequencies(self, terms: Sequence[int]) -> dict[int, int]: ...

    async def payload(self, chunk_id: UUID) -> Mapping[str, Any]: ...


def entry(
    ordinal: int, words: str, dense: Any = EAST, *, version: UUID = VERSION, **payload: Any
) -> VectorEntry:
    tokens = words.split()
    return VectorEntry(
        chunk_id=stable_id(version, ordinal),
        document_id=DOCUMENT,
        document_version_id=version,
        text_hash=sha256(words.encode()).digest(),
        term_count=len(tokens),
        dense=dense,
        sparse=encode_document(tokens, average_length=4),
        payload=payload,
    )


def asking(word: str) -> SparseVector:
    return SparseVector(tuple(query_terms(word, ["xx"])), (1.0,))


async def counted(index: Index, *words: str) -> list[int]:
    """In how many searched chunks each word occurs."""
    terms = [asking(word).indices[0] for word in words]
    found = await index.frequencies(terms)
    return [found.get(term, 0) for term in terms]


class VectorStoreConformance:
    """Needs a fixture `index`, whose writes are seen once their call has returned."""

    async def test_shows_nothing_before_it_is_published(self, index: Index) -> None:
        await index.store.upsert([entry(0, "lantern harbour")])
        assert (await index.dense(EAST), await index.keyword(asking("lantern"))) == ([], [])
        assert await counted(index, "lantern") == [0]
        change = await index.store.publish(DOCUMENT, VERSION, payload=PAYLOAD)
        assert change == Totals(1, 2)
        assert [hit.chunk_id for hit in await index.dense(EAST)] == [stable_id(VERSION, 0)]
        assert await counted(index, "lantern", "harbour") == [1, 1]

    async def test_publishing_takes_the_place_of_the_older_version(self, index: Index) -> None:
        await index.store.upsert([entry(0, "lantern"), entry(1, "lantern harbour")])
        await index.store.publish(DOCUMENT, VERSION, payload=PAYLOAD)
        await index.store.upsert([entry(0, "falcon", version=NEXT_VERSION)])
        assert await index.store.publish(DOCUMENT, NEXT_VERSION, payload=PAYLOAD) == Totals(-1, -2)
        assert [hit.chunk_id for hit in await index.dense(EAST)] == [stable_id(NEXT_VERSION, 0)]
        assert await counted(index, "lantern", "harbour", "falcon") == [0, 0, 1]

    async def test_removes_all_of_a_document(self, index: Index) -> None:
        await index.store.upsert([entry(0, "lantern"), entry(1, "falcon")])
        await index.store.publish(DOCUMENT, VERSION, payload=PAYLOAD)
        assert await index.store.hide(DOCUMENT) == Totals(-2, -2)
        assert await index.dense(EAST) == []
        assert await index.store.remove(DOCUMENT) == 0
        assert await index.store.stored(VERSION) == set()
        assert await counted(index, "lantern", "falcon") == [0, 0]

    async def test_reweighing_changes_scores_only(self, index: Index) -> None:
        await index.store.upsert([entry(0, "lantern harbour")])
        await index.store.publish(DOCUMENT, VERSION, payload=PAYLOAD)
        heavier = encode_document(["lantern", "harbour"], average_length=400)
        await index.store.reweigh({stable_id(VERSION, 0): heavier})
        (hit,) = await index.keyword(asking("lantern"))
        assert hit.score == pytest.approx(heavier.values[0], rel=1e-4)
        assert await counted(index, "lantern", "harbour") == [1, 1]

    async def test_upsert_replaces_the_entry_of_a_chunk(self, index: Index) -> None:
        await index.store.upsert([entry(0, "lantern harbour", WEST), entry(1, "meadow", NORTH)])
        await index.store.upsert([entry(0, "falcon falcon falcon", EAST)])
        assert await index.store.publish(DOCUMENT, VERSION, payload=PAYLOAD) == Totals(2, 4)
        best, other = await index.dense(EAST)
        assert (best.chunk_id, best.score) == (stable_id(VERSION, 0), 1)
        assert (other.chunk_id, other.score) == (stable_id(VERSION, 1), 0)
        assert await index.keyword(asking("lantern")) == []
        assert [hit.chunk_id for hit in await index.keyword(asking("falcon"))] == [best.chunk_id]
        assert await counted(index, "lantern", "falcon", "meadow") == [0, 1, 1]

    async def test_upsert_replaces_the_hash_under_which_a_vector_is_known(self, index: Index) -> None:
        old, new = entry(0, "lantern", WEST), entry(0, "falcon", EAST)
        await index.store.upsert([old])
        await index.store.upsert([new])
        known = await index.store.known([old.text_hash, new.text_hash])
        assert {digest: vector.tolist() for digest, vector in known.items()} == {new.text_hash: EAST.tolist()}

    async def test_upsert_replaces_the_payload(self, index: Index) -> None:
        await index.store.upsert([entry(0, "lantern", shelf=1), entry(1, "meadow", shelf=1)])
        await index.store.upsert([entry(0, "lantern", row="a")])
        assert await index.payload(stable_id(VERSION, 0)) == {"row": "a"}
        assert await index.payload(stable_id(VERSION, 1)) == {"shelf": 1}

    async def test_upsert_of_the_same_chunk_twice_keeps_the_last(self, index: Index) -> None:
        await index.store.upsert([entry(0, "lantern", WEST), entry(0, "falcon", EAST)])
        await index.store.publish(DOCUMENT, VERSION, payload=PAYLOAD)
        assert [hit.score for hit in await index.dense(EAST)] == [1]
        assert await counted(index, "lantern", "falcon") == [0, 1]

    async def test_upsert_of_what_is_searched_is_searched_at_once(self, index: Index) -> None:
        await index.store.upsert([entry(0, "lantern harbour", WEST)])
        await index.store.publish(DOCUMENT, VERSION, payload=PAYLOAD)
        await index.store.upsert([entry(0, "lantern harbour", EAST, row="a")])
        assert [hit.score for hit in await index.dense(EAST)] == [1]
        assert await index.payload(stable_id(VERSION, 0)) == {"row": "a"}
        assert await counted(index, "lantern", "harbour") == [1, 1]

    @pytest.mark.parametrize("words", ["falcon harbour", "lantern lantern harbour"])
    async def test_upsert_of_other_terms_for_what_is_searched_is_refused(
        self, index: Index, words: str
    ) -> None:
        await index.store.upsert([entry(0, "lantern harbour", EAST)])
        await index.store.publish(DOCUMENT, VERSION, payload=PAYLOAD)
        with pytest.raises(ValueError, match="keeps its terms"):
            await index.store.upsert([entry(0, words, WEST)])
        assert [hit.score for hit in await index.dense(EAST)] == [1]
        assert await counted(index, "lantern", "harbour", "falcon") == [1, 1, 0]
