"""The keyword leg: one sparse BM25 encoder shared by all vector stores."""

from app.rag.sparse.bm25 import dot, encode_document, encode_query, idf, query_terms, term_id
from app.rag.sparse.languages import LANGUAGES, detect_language
from app.rag.sparse.tokens import tokenize

__all__ = [
    "LANGUAGES",
    "detect_language",
    "dot",
    "encode_document",
    "encode_query",
    "idf",
    "query_terms",
    "term_id",
    "tokenize",
]
