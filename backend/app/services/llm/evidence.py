"""What the words say: how well each sentence of a context answers a question, before any embedding."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.agent.core.interfaces import Passage
from app.rag.sparse import detect_language, dot, encode_document, encode_query, idf, term_id, tokenize
from app.services.llm.rendering import Candidate, candidates

# A context is far too small to tell common from rare words; as if it came with this many more sentences.
_UNSEEN_SENTENCES = 50
_LANGUAGE_SAMPLE = 2000
# Words that ask rather than say what is asked about.
_ASKING = {
    "en": """what which who whom whose when where why how many much do does did can could should would is
        are was were has have had might must shall will let get i you we me my your our it please about some
        any kind type there use used using called""",
    "de": """wie was wann wo wer wen wem warum wieso weshalb welche welcher welches welchen viele kann
        können gibt bitte""",
    "fr": "quel quelle quels quelles comment quand où pourquoi combien qui quoi est-ce peut",
    "es": "qué cuál cuáles cuándo dónde cómo quién quiénes cuánto cuántos cuántas puede",
    "it": "quale quali quando dove come perché chi quanto quanti può",
    "pt": "qual quais quando onde como porque quem quanto quantos pode",
    "zh": "是什么 什么 为什么 是谁 谁是 是多少 多少 多少天 在哪里 哪里 哪个 如何 怎么 怎样 吗",
    "ja": "何ですか ですか ますか どこ いつ だれ どの どう なぜ いくら いくつ",
    "nl": "wat wie welke wanneer waar waarom hoe hoeveel kan",
}
# "How long is …?" asks for a measure, which an answer gives without the word; "List the …" orders, while
# "the list price" does not; "May I …?" asks, while "in May" does not.
_FRAME = re.compile(
    r"""^\W*(?:please\s+)?(?:tell|explain|describe|give|list|name|may)\b
    |(?-i:\bmay\b)
    |\bhow\s+(?:big|close|deep|early|far|fast|great|hard|heavy|high|large|late|long|low|near|often|old|short
    |small|soon|strong|tall|thick|warm|well|wide|young|\w+ly)\b""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A sentence with its BM25 score (1 for the best of the context, 0 without a common word) and
    `coverage`: which part of the question's weight (squared IDF) it covers, with its heading and the
    sentences it is read together with, 0 to 1."""

    candidate: Candidate
    bm25: float
    coverage: float
    terms: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reading:
    """A context read for a question; `language` is the context's (ISO 639-1), None where uncertain."""

    language: str | None
    evidence: list[Evidence]


def read(question: str, context: Sequence[Passage]) -> Reading:
    """CPU-bound, about 10 ms for 10 passages: call it off the event loop."""
    text = " ".join(passage.text[:_LANGUAGE_SAMPLE] for passage in context)
    language = detect_language(text)
    found = candidates(context)
    if not found:
        return Reading(language, [])
    tokens = [tokenize(candidate.text, language) for candidate in found]
    asked = asked_terms(question, language)
    scores = _bm25(asked, tokens)
    coverage = _coverage(asked, found, tokens, language)
    rows = zip(found, scores, coverage, tokens, strict=True)
    return Reading(language, [Evidence(one, score, part, frozenset(t)) for one, score, part, t in rows])


def asked_terms(question: str, language: str | None) -> list[str]:
    """The terms of a question without those that only ask; all of them if no others are left."""
    language = language or "en"
    asking = set(tokenize(_ASKING.get(language, ""), language))
    subject = _FRAME.sub(" ", question) if language == "en" else question
    terms = [term for term in tokenize(subject, language) if term not in asking]
    return terms or tokenize(question, language)


def read_together(one: Candidate, other: Candidate) -> bool:
    """Whether two neighbours explain each other: those of one passage do, rows of a table do not."""
    return one.passage == other.passage and not (one.row or other.row)


def _bm25(asked: Sequence[str], tokens: Sequence[Sequence[str]]) -> list[float]:
    average = max(1.0, sum(map(len, tokens)) / len(tokens))
    documents = [encode_document(one, average_length=average) for one in tokens]
    frequencies = Counter(index for document in documents for index in document.indices)
    counts = Counter(map(term_id, asked))
    query = encode_query(
        {term: frequencies[term] for term in counts}, document_count=len(tokens), counts=counts
    )
    scores = [dot(query, document) for document in documents]
    best = max(scores) or 1.0
    return [score / best for score in scores]


def _coverage(
    asked: Sequence[str], found: Sequence[Candidate], tokens: Sequence[Sequence[str]], language: str | None
) -> list[float]:
    frequencies = Counter(term for one in tokens for term in set(one))
    # squared, as in a product of two TF-IDF vectors: what is asked about weighs more than where
    weights = {term: idf(frequencies[term], len(tokens) + _UNSEEN_SENTENCES) ** 2 for term in asked}
    headings = {one.heading: set(tokenize(one.heading, language)) for one in found}
    parts = []
    for place, candidate in enumerate(found):
        seen = headings[candidate.heading] | set(tokens[place])
        for beside in (place - 1, place + 1):
            if 0 <= beside < len(found) and read_together(candidate, found[beside]):
                seen.update(tokens[beside])
        parts.append(_share(weights, seen))
    return parts


def _share(weights: Mapping[str, float], seen: set[str]) -> float:
    total = sum(weights.values())
    return sum(weight for term, weight in weights.items() if term in seen) / total if total else 0.0
