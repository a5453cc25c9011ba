from __future__ import annotations

import pytest

from app.agent.core.interfaces import Capability, ChatRequest, Message, ModelError, Role, TextDelta
from app.rag.providers.model.minilm import MiniLM
from app.services.llm.extractive import NO_CONTEXT, UNKNOWN, Extractive
from tests.services.llm.chat_model_conformance import (
    CONTEXT,
    QUESTION,
    ChatModelConformance,
    citations_of,
    collect,
    passage,
    request,
    text_of,
)

RETURNS = passage(
    """# Returns

You can return any item within 30 days of delivery for a full refund. Sale items are final.

## How do I start a return?

Open **Orders** and choose the item. We e-mail you a [label](https://shop.example/label).[7]

## Shipping

| Country | Standard | Express |
|---|---|---|
| Germany | 4.90 EUR | 12.00 EUR |
| France | 6.90 EUR | 15.00 EUR |
""",
    title="returns.md",
    start=1000,
)
WARRANTY = passage(
    """All devices have a two-year warranty. It does not cover water damage. To make a claim, you need:
- the serial number
- the receipt

Install the tool with:

```sh
pip install acme
```
""",
    title="Warranty",
    number=2,
)


@pytest.fixture(scope="session")
def model(embedder: MiniLM) -> Extractive:
    return Extractive(embedder)


async def answer(model: Extractive, question: str, *, citations: bool = True) -> str:
    return text_of(await collect(model, request(question, RETURNS, WARRANTY, citations=citations)))


class TestExtractive(ChatModelConformance):
    def test_streams_and_nothing_more(self, model: Extractive) -> None:
        assert model.name == "local/extractive"
        assert model.capabilities == {Capability.STREAMING}

    async def test_streams_word_by_word(self, model: Extractive) -> None:
        events = await collect(model, request(QUESTION, *CONTEXT))
        assert len([event for event in events if isinstance(event, TextDelta)]) > 8

    async def test_the_same_request_gives_the_same_answer(self, model: Extractive) -> None:
        asked = request(QUESTION, *CONTEXT)
        assert await collect(model, asked) == await collect(model, asked)


class TestAnswer:
    async def test_is_the_sentence_that_answers(self, model: Extractive) -> None:
        said = await answer(model, "How many days do I have to return an item?")
        assert said == "You can return any item within 30 days of delivery for a full refund. [1]"

    async def test_has_no_markers_unless_asked(self, model: Extractive) -> None:
        said = await answer(model, "Are sale items refundable?", citations=False)
        assert said.endswith("Sale items are final.")
        assert "[" not in said

    async def test_the_marker_counts_the_place_in_the_context(self, model: Extractive) -> None:
        assert "water damage. [2]" in await answer(model, "Does the warranty cover water damage?")

    async def test_a_table_row_is_said_with_its_columns(self, model: Extractive) -> None:
        said = await answer(model, "How much is express shipping to France?")
        assert said == "Country: France; Standard: 6.90 EUR; Express: 15.00 EUR. [1]"

    async def test_a_question_as_heading_leads_to_its_answer(self, model: Extractive) -> None:
        assert "Open Orders and choose the item. [1]" in await answer(model, "How do I start a return?")

    async def test_a_list_follows_the_line_that_leads_to_it(self, model: Extractive) -> None:
        said = await answer(model, "What do I need to make a warranty claim?")
        assert said == "To make a claim, you need:\n- the serial number\n- the receipt [2]"

    async def test_code_follows_the_line_that_leads_to_it(self, model: Extractive) -> None:
        said = await answer(model, "How do I install the tool?")
        assert said == "Install the tool with:\n```sh\npip install acme\n```\n[2]"

    async def test_what_it_refers_to_is_said_first(self, model: Extractive) -> None:
        context = passage("The Acme X1 is a drill. It weighs exactly four kilograms and two hundred grams.")
        said = text_of(await collect(model, request("How many kilograms does it weigh?", context)))
        assert said.startswith("The Acme X1 is a drill. [1] It weighs")

    async def test_nothing_is_said_twice(self, model: Extractive) -> None:
        text = "Refunds are paid within thirty days."
        context = [passage(text, number=number) for number in (1, 2, 3)]
        said = text_of(await collect(model, request("When are refunds paid?", *context)))
        assert said == f"{text} [1]"

    async def test_other_languages_are_answered_by_their_words(self, model: Extractive) -> None:
        context = passage(
            "Rücksendungen sind binnen 30 Tagen möglich. Der Versand nach Österreich kostet 9,90 Euro."
        )
        said = text_of(await collect(model, request("Was kostet der Versand nach Österreich?", context)))
        assert said == "Der Versand nach Österreich kostet 9,90 Euro. [1]"

    async def test_the_last_user_message_is_the_question(self, model: Extractive) -> None:
        messages = (
            Message(Role.USER, "Are sale items refundable?"),
            Message(Role.ASSISTANT, "No."),
            Message(Role.USER, "Does the warranty cover water damage?"),
            Message(Role.SYSTEM, "Answer in one sentence."),
        )
        said = text_of(await collect(model, ChatRequest(messages, (RETURNS, WARRANTY))))
        assert "It does not cover water damage." in said

    async def test_a_context_of_thousands_of_sentences_is_no_obstacle(self, model: Extractive) -> None:
        filler = " ".join(f"Sentence number {number} speaks of topic {number * 7}." for number in range(3000))
        text = f"{filler} The secret harbour lies in Valparaiso. {filler}"
        said = text_of(await collect(model, request("Where does the secret harbour lie?", passage(text))))
        assert said == "The secret harbour lies in Valparaiso. [1]"


OFFICE = passage(
    """LIBRARY GUIDE: LISBON AND GHENT

Orbis Library, handbook part 3. Valid from 1 May 2026.

1. OPENING HOURS

The Lisbon library opens at nine and closes at seven. Readers may carry water into the
Lisbon library, but no food.

2. LOANS

A reader of the Lisbon library may borrow twelve books at a time. Orbis Library was opened in 1974 in a former
mill. The projector Lumen 40 is lent for two days; the Lumen 40 weighs three kilograms.
""",
    title="library-guide.txt",
)


class TestPlace:
    """Questions that name what the context is about."""

    @pytest.mark.parametrize(
        "question",
        [
            "May I bring my cat to the Lisbon library?",
            "Who is the managing director of Orbis Library?",
            "What is the purchase price of a Lumen 40?",
            "Does the Lisbon library have wheelchairs?",
            "How many parking spaces does the Lisbon library have?",
            "Which insurance covers the Lumen 40?",
        ],
    )
    async def test_is_not_enough_to_answer(self, model: Extractive, question: str) -> None:
        assert text_of(await collect(model, request(question, OFFICE))) == UNKNOWN

    @pytest.mark.parametrize(
        ("question", "answer"),
        [
            ("When does the Lisbon library close?", "closes at seven"),
            ("May I carry water into the Lisbon library?", "but no food"),
            ("How many books may I borrow at a time?", "twelve books"),
            ("How heavy is the Lumen 40?", "three kilograms"),
            ("In which year was Orbis Library opened?", "1974"),
        ],
    )
    async def test_does_not_hinder_an_answer(self, model: Extractive, question: str, answer: str) -> None:
        assert answer in text_of(await collect(model, request(question, OFFICE)))

    @pytest.mark.parametrize(
        "question",
        [
            "Tell me about the library guide of Lisbon and Ghent",
            "What is in the Orbis Library handbook part 3?",
        ],
    )
    async def test_is_never_answered_by_a_heading(self, model: Extractive, question: str) -> None:
        said = text_of(await collect(model, request(question, OFFICE)))
        assert not any(line in said for line in ("GUIDE", "handbook part", "OPENING HOURS"))


class TestCitation:
    async def test_quotes_the_stored_text_where_it_stands(self, model: Extractive) -> None:
        events = await collect(model, request("How much is express shipping to France?", RETURNS))
        (citation,) = citations_of(events)
        assert citation.quote == "| France | 6.90 EUR | 15.00 EUR |"
        assert citation.start == 1000 + RETURNS.text.index(citation.quote)
        assert citation.end == citation.start + len(citation.quote)
        assert (citation.title, citation.page) == ("returns.md", 1)

    async def test_counts_code_points(self, model: Extractive) -> None:
        text = "👩‍🚀 Zürich is nice. The office in Zürich opens at nine."
        (citation,) = citations_of(
            await collect(model, request("When does the office in Zürich open?", passage(text)))
        )
        assert text[citation.start : citation.end] == citation.quote == "The office in Zürich opens at nine."


class TestUnknown:
    @pytest.mark.parametrize(
        "question",
        [
            "What is the capital of Mongolia?",
            "Who is the chief executive of the company?",
            "What is the parental leave policy?",
            "Can I pay with bitcoin?",
            "hello",
            "",
        ],
    )
    async def test_says_so(self, model: Extractive, question: str) -> None:
        assert await answer(model, question) == UNKNOWN

    async def test_cites_nothing(self, model: Extractive) -> None:
        events = await collect(model, request("What is the capital of Mongolia?", RETURNS, WARRANTY))
        assert not citations_of(events)

    @pytest.mark.parametrize("text", ["", "   ", "12\n\n---\n\n# Heading", "| | |"])
    async def test_so_it_does_of_a_context_without_sentences(self, model: Extractive, text: str) -> None:
        assert text_of(await collect(model, request(QUESTION, passage(text)))) == UNKNOWN

    async def test_without_context_says_what_it_needs(self, model: Extractive) -> None:
        assert text_of(await collect(model, request(QUESTION))) == NO_CONTEXT


class TestFailure:
    async def test_a_request_without_user_message_is_refused(self, model: Extractive) -> None:
        with pytest.raises(ModelError) as caught:
            await collect(model, ChatRequest((Message(Role.SYSTEM, "Be brief."),)))
        assert caught.value.code == "bad_request"

    async def test_of_the_embedder_is_one_of_the_server(self, embedder: MiniLM) -> None:
        closed = MiniLM(embedder.tokenizer_path().parent)
        closed.close()
        with pytest.raises(ModelError) as caught:
            await collect(Extractive(closed), request(QUESTION, *CONTEXT))
        assert caught.value.code == "server_error"
