"""Bytes to text: byte order marks, declared encodings, UTF-8, and a guess for what is older."""

from __future__ import annotations

import codecs
import re
from importlib.util import find_spec

_MARKS = (  # the 32-bit marks start with the 16-bit ones, so they come first
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Encodings that a document may declare (WHATWG); Python's codec names reach further than text.
_DECLARABLE = re.compile(
    r"utf-?8|utf-?16(-?[lb]e)?|us-ascii|ascii|latin-?1|(iso-?)?8859-\d{1,2}|(windows-|cp)(874|125[0-8])"
    r"|koi8-[ru]|macintosh|gb2312|gbk|gb18030|big5|shift[-_]jis|euc-(jp|kr)|iso-2022-jp"
)
# What labels really mean on the web: the wider Windows code page.
_WIDER = {
    "us-ascii": "cp1252", "ascii": "cp1252", "latin1": "cp1252", "latin-1": "cp1252",
    "iso-8859-1": "cp1252", "iso8859-1": "cp1252", "8859-1": "cp1252", "gb2312": "gb18030",
    "gbk": "gb18030", "shift_jis": "cp932", "shift-jis": "cp932", "euc-kr": "cp949",
}  # fmt: skip
# Legacy encodings that text files are still found in; an open choice ends in look-alikes of these.
_LIKELY = [
    "cp1252", "cp1251", "koi8_r", "cp1250", "cp1253", "cp1254", "cp932", "euc_jp", "gb18030", "big5", "cp949",
]  # fmt: skip
# Central European words, misread as Western: a letter and then a sign, or letters that no one language mixes.
_NOT_WESTERN = re.compile(r"[a-z][\u00b3\u00b9\u00bf\u00be]", re.IGNORECASE)
_SELDOM_TOGETHER = frozenset("\u00ec\u00f8\u00e8\u00f9\u00f2\u00f5\u00fb")
_SAMPLE = 64 * 1024  # bytes around the first that is not UTF-8
_BEFORE = 256  # of them before it, for the guess: more ASCII only misleads


def marked_encoding(head: bytes) -> str | None:
    """The encoding that a byte order mark, or the zeros of unmarked UTF-16, give away."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    half = min(len(head), 1024) // 2
    even, odd = head[0 : 2 * half : 2].count(0), head[1 : 2 * half : 2].count(0)
    if odd > 0.6 * half and even < 0.1 * half:
        return "utf-16-le"
    if even > 0.6 * half and odd < 0.1 * half:
        return "utf-16-be"
    return None


def decode(data: bytes, *, declared: str | None = None) -> str:
    """`data` as text; never fails. `declared` is what the document says of itself, believed if it fits."""
    if marked := marked_encoding(data[:1024]):
        return data.decode(marked, "replace").removeprefix("\ufeff")
    if encoding := _known(declared):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            pass
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start
    if _mostly_utf8(data[max(0, at - _SAMPLE) : at + _SAMPLE]):
        return data.decode("utf-8", "replace")
    return data.decode(_guess(data[max(0, at - _BEFORE) : at + _SAMPLE]), "replace")


def _known(declared: str | None) -> str | None:
    name = (declared or "").strip().lower()
    return _WIDER.get(name, name) if _DECLARABLE.fullmatch(name) else None


def _mostly_utf8(sample: bytes) -> bool:
    """A few broken bytes do not make a UTF-8 file something else."""
    high = sum(byte > 127 for byte in sample)
    return sample.decode("utf-8", "replace").count("\ufffd") * 20 < high


def _guess(sample: bytes) -> str:
    if not find_spec("charset_normalizer"):
        return "cp1252"
    from charset_normalizer import from_bytes  # noqa: PLC0415  (40 ms, and rarely needed)

    best = from_bytes(sample, cp_isolation=_LIKELY).best()
    if best is None or (best.encoding == "cp1250" and _reads_western(sample.decode("cp1252", "replace"))):
        return "cp1252"
    return best.encoding


def _reads_western(text: str) -> bool:
    return not _NOT_WESTERN.search(text) and len(_SELDOM_TOGETHER.intersection(text.lower())) < 2
