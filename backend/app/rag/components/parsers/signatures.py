"""First bytes of common file formats that are not documents we read, so that an error can name them."""

from __future__ import annotations

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (4, b"ftypheic", "a HEIC image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftyp", "an MP4 video or audio file"),
    (8, b"WAVE", "a WAV audio file"),
    (8, b"AVI ", "an AVI video"),
    (0, b"ID3", "an MP3 audio file"),
    (0, b"OggS", "an Ogg audio or video file"),
    (0, b"fLaC", "a FLAC audio file"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ\x00", "an xz archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"(\xb5/\xfd", "a Zstandard archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"{\\rtf", "an RTF document"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"AT&TFORM", "a DjVu document"),
    (60, b"BOOKMOBI", "a Mobipocket book"),
    (0, b"SQLite format 3\x00", "an SQLite database"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"\x7fELF", "an ELF program"),
    (0, b"MZ", "a Windows program"),
    (0, b"\xcf\xfa\xed\xfe", "a macOS program"),
    (0, b"\xca\xfe\xba\xbe", "a Java class or macOS program"),
    (0, b"\x00asm", "a WebAssembly module"),
    (0, b"wOF", "a web font"),
    (0, b"\x00\x01\x00\x00\x00", "a TrueType font"),
)

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_STREAMS: tuple[tuple[str, str], ...] = (
    ("WordDocument", "a legacy Word document (.doc)"),
    ("Workbook", "a legacy Excel workbook (.xls)"),
    ("PowerPoint Document", "a legacy PowerPoint presentation (.ppt)"),
    ("__substg1.0_", "an Outlook message (.msg)"),
)
ENCRYPTED_OFFICE = "a password-protected Office document"

_ZIP_ENTRIES: tuple[tuple[str, str], ...] = (
    ("xl/", "an Excel workbook (.xlsx)"),
    ("ppt/", "a PowerPoint presentation (.pptx)"),
    ("visio/", "a Visio drawing (.vsdx)"),
    ("META-INF/container.xml", "an EPUB book"),
    ("META-INF/manifest.xml", "an OpenDocument file"),
    ("META-INF/MANIFEST.MF", "a Java archive"),
    ("Index/Document.iwa", "an Apple iWork document"),
)


def binary_format(head: bytes) -> str | None:
    """What `head` begins like, in words ("a PNG image"); None when no signature matches."""
    if head.startswith(OLE):
        return _ole_format(head)
    for offset, magic, name in _SIGNATURES:
        # Two letters prove nothing: text may begin with them, a program holds zeros soon after.
        if head.startswith(magic, offset) and (len(magic) > 3 or not _is_text(head[:512])):
            return name
    return None


def ole_directory(head: bytes) -> int:
    """Where the directory of an OLE file begins ([MS-CFB] 2.2), which names what it holds."""
    shift, sector = int.from_bytes(head[0x1E:0x20], "little"), int.from_bytes(head[0x30:0x34], "little")
    return (sector + 1) << min(shift, 12)


def zip_format(entries: list[str]) -> str:
    """What a ZIP archive with these entry names is, in words."""
    for prefix, name in _ZIP_ENTRIES:
        if any(entry.startswith(prefix) for entry in entries):
            return name
    return "a ZIP archive"


def _ole_format(head: bytes) -> str:
    if "EncryptedPackage".encode("utf-16-le") in head:
        return ENCRYPTED_OFFICE
    for stream, name in _OLE_STREAMS:
        if stream.encode("utf-16-le") in head:
            return name
    return "a legacy Office (OLE) file"


def _is_text(head: bytes) -> bool:
    return not any(byte < 9 or 13 < byte < 27 for byte in head)
