"""Opening ZIP-based office files: bombs are refused before unpacking, entities before XML is read."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, cast
from xml.etree import ElementTree

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from app.rag.components.parsers.errors import ParseError
from app.rag.components.parsers.limits import ParseLimits

_MAX_ENTRIES: Final = 20_000
_SMALL_ENTRY: Final = 2**20  # packs of repeated tags are dense; a ratio says nothing about small entries
_PROLOG_BYTES: Final = 64 * 1024


@contextmanager
def office_file(file: BinaryIO, limits: ParseLimits) -> Iterator[zipfile.ZipFile]:
    """The archive in `file`, checked against `limits`; damage found while reading becomes a `ParseError`."""
    try:
        with zipfile.ZipFile(file) as archive:
            _check(archive.infolist(), limits)
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ElementTree.ParseError) as error:
        raise ParseError("corrupt", f"The office file is damaged: {error}") from error


@contextmanager
def xml_part(archive: zipfile.ZipFile, name: str) -> Iterator[BinaryIO]:
    """One XML part as a stream. Raises `ParseError` (`corrupt`) when it declares a document type."""
    with archive.open(name) as stream:
        refuse_entities(cast(BinaryIO, stream), name)
    with archive.open(name) as stream:
        yield cast(BinaryIO, stream)


def xml_tree(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    """The root of a small part; an empty element when the archive has no such part."""
    if name not in archive.NameToInfo:
        return ElementTree.Element("none")
    with xml_part(archive, name) as stream:
        return ElementTree.parse(stream).getroot()  # noqa: S314  (entities are refused by `xml_part`)


def refuse_entities(stream: BinaryIO, name: str) -> None:
    """Reads up to the first element: office XML has no document type, only attacks do."""
    started = _Started()
    parser = DefusedXMLParser(target=started, forbid_dtd=True)
    read = 0
    try:
        while not started.seen and read < _PROLOG_BYTES and (data := stream.read(4096)):
            read += len(data)
            parser.feed(data)
    except DefusedXmlException as error:
        raise ParseError("corrupt", f"{name!r} declares a document type, which is refused") from error
    if not started.seen:
        raise ParseError("corrupt", f"{name!r} holds no XML element in its first {_PROLOG_BYTES} bytes")


class _Started:
    """An XML target that only notes that an element began."""

    def __init__(self) -> None:
        self.seen = False

    def start(self, _tag: str, _attributes: dict[str, Any]) -> None:
        self.seen = True


def _check(entries: list[zipfile.ZipInfo], limits: ParseLimits) -> None:
    if len(entries) > _MAX_ENTRIES:
        raise ParseError(
            "too_large", f"The archive has {len(entries)} entries; at most {_MAX_ENTRIES} may be"
        )
    if any(entry.flag_bits & 1 for entry in entries):
        raise ParseError("encrypted", "The archive is protected by a password; save it without one")
    total = sum(entry.file_size for entry in entries)
    if total > limits.memory_bytes:
        raise ParseError(
            "too_large", f"The archive unpacks to {total} bytes; at most {limits.memory_bytes} are allowed"
        )
    for entry in entries:
        if entry.file_size > max(_SMALL_ENTRY, limits.max_archive_ratio * entry.compress_size):
            raise ParseError(
                "too_large",
                f"{entry.filename!r} unpacks to more than {limits.max_archive_ratio} times its size",
            )
