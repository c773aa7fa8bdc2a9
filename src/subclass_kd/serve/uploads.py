"""Files out of a multipart request, in memory and under limits: Starlette's own parser would keep them on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from subclass_kd.errors import UserError
from subclass_kd.serve.limits import Limits, RefusedError, size_in_words
from subclass_kd.serve.room import Held

FIELD = "files"
_LONGEST_NAME = 255  # characters of a file's name that are kept
_REMEDY = "Send multipart/form-data with one or several files in the field “files”, as curl -F files=@image.png does."


class Upload(NamedTuple):
    """A file as it came."""

    name: str
    content: bytes


async def read_uploads(
    content_type: str | None, content_length: str | None, stream: AsyncIterator[bytes], limits: Limits, held: Held
) -> list[Upload]:
    """Read a request's files.

    Args:
        content_type: the header, or None.
        content_length: the header, or None.
        stream: of the body.
        limits: of the server.
        held: counts the bytes in memory.

    Raises:
        RefusedError: 415 for another kind of body, 400 for one that is not whole, 413 for too much, 408 for too slow,
            422 for no file, too many, or what is none, 503 where all requests together hold too much.
    """
    if content_length is not None and content_length.isdecimal() and int(content_length) > limits.request_bytes:
        raise _too_large("the request", int(content_length), limits.request_bytes)
    collector = Collector(content_type, limits)
    received = 0
    try:
        async with asyncio.timeout(limits.upload_seconds):
            while (chunk := await _next(stream, limits.idle_seconds)) is not None:
                received += len(chunk)
                if received > limits.request_bytes:
                    raise _too_large("the request", received, limits.request_bytes)
                held.add(len(chunk))
                collector.feed(chunk)
    except TimeoutError:
        found = (
            f"a body that had not come in {limits.upload_seconds:g} s, or that stopped for {limits.idle_seconds:g} s"
        )
        raise RefusedError(
            408, UserError("the request", found, "a quicker one", "Send fewer or smaller files.")
        ) from None
    return collector.finish()


async def _next(stream: AsyncIterator[bytes], seconds: float) -> bytes | None:
    async with asyncio.timeout(seconds):
        return await anext(stream, None)


class Collector:
    """Takes a multipart body in pieces and gives its files.

    Args:
        content_type: the header, with the boundary.
        limits: of the server.

    Raises:
        RefusedError: 415, or 400 where there is no boundary; the methods' as :func:`read_uploads` says.
    """

    def __init__(self, content_type: str | None, limits: Limits) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data":
            found = f"a body of type “{content_type[:80]}”" if content_type else "a body of no stated type"
            raise RefusedError(415, UserError("header Content-Type", found, "multipart/form-data", _REMEDY))
        self._limits = limits
        self._uploads: list[Upload] = []
        self._whole = False
        self._header, self._value, self._disposition = bytearray(), bytearray(), b""
        self._name, self._content = "", bytearray()
        try:
            self._parser = MultipartParser(
                options.get(b"boundary", b""),
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._take,
                    "on_part_end": self._close,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed(str(error)) from None
        if not options.get(b"boundary"):
            raise _malformed("no boundary in the header Content-Type")

    def feed(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed(str(error)) from None

    def finish(self) -> list[Upload]:
        """Give the files once the whole body was fed."""
        if not self._whole:
            raise _malformed("no end of the multipart body")
        if not self._uploads:
            raise RefusedError(422, UserError("the request", "no file", "at least one", _REMEDY))
        return self._uploads

    def _begin(self) -> None:
        self._disposition, self._content = b"", bytearray()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _open(self) -> None:
        kind, options = parse_options_header(self._disposition)
        field, name = (options[key].decode("utf-8", "replace") if key in options else None for key in _KEYS)
        if kind != b"form-data" or field is None:
            raise _malformed("a part without a name")
        if field != FIELD or name is None:
            what = "a file" if name is not None else "a value"
            found = f"{what} in the field “{field[:80]}”"
            raise RefusedError(422, UserError("the request", found, f"files in the field “{FIELD}” alone", _REMEDY))
        if len(self._uploads) >= self._limits.files:
            found = f"more than {self._limits.files} files"
            reason = UserError("the request", found, f"at most {self._limits.files}", "Send several requests.")
            raise RefusedError(422, reason)
        self._name = name[:_LONGEST_NAME]

    def _take(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]
        if len(self._content) > self._limits.file_bytes:
            raise _too_large(self._name, len(self._content), self._limits.file_bytes)

    def _close(self) -> None:
        self._uploads.append(Upload(self._name, bytes(self._content)))
        self._content = bytearray()

    def _end(self) -> None:
        self._whole = True


_KEYS = (b"name", b"filename")


def _malformed(found: str) -> RefusedError:
    return RefusedError(400, UserError("the request", f"a body that is no multipart ({found})", "a whole one", _REMEDY))


def _too_large(where: str, found: int, most: int) -> RefusedError:
    found_words = f"{size_in_words(found)} or more"
    return RefusedError(
        413, UserError(where, found_words, f"at most {size_in_words(most)}", "Send smaller files, or fewer.")
    )
