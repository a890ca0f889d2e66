"""Tells a text file's encoding by its byte order mark, and reads any as UTF-8."""

from __future__ import annotations

import codecs
from io import BufferedReader

from syncline.connectors.json_text import Read
from syncline.errors import ConfigurationError, SourceError

# That of UTF-32 begins as that of UTF-16 does.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def find_encoding(content: BufferedReader, encoding: str | None) -> str:
    """Return the encoding that is set, else the mark's, else utf-8; a mark of UTF-8 is passed."""
    head = content.peek(4)
    if head.startswith(codecs.BOM_UTF8):
        content.read(len(codecs.BOM_UTF8))
        return encoding or "utf-8"
    return encoding or next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")


def utf8_reader(content: BufferedReader, encoding: str, place: str) -> Read:
    """Return what reads the text in `encoding` as UTF-8; raises SourceError where its bytes are no such text."""
    try:
        if codecs.lookup(encoding).name == "utf-8":
            return content.read
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise ConfigurationError(f"the encoding {encoding!r} is not known", "utf-8 and latin-1 are.") from None

    def read(size: int, /) -> bytes:
        while block := content.read(size):
            if text := decode(block, is_last=False):
                return text
        return decode(b"", is_last=True)

    def decode(block: bytes, *, is_last: bool) -> bytes:
        try:
            return decoder.decode(block, is_last).encode()
        except UnicodeError:
            raise SourceError(f"{place} cannot be decoded as {encoding}", "Set the file's encoding.") from None

    return read
