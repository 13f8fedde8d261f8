"""What a client sends: a multipart form of pictures and boxes, read into memory and never to disk, within limits.

Whatever is wrong with it is an `HTTPException` whose detail is one sentence.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

from fastapi import HTTPException, Request
from PIL import Image as Pil
from PIL import UnidentifiedImageError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from metro.errors import MetroError
from metro.export.predictor import Photo, box_table, read_image
from metro.serve.limits import Limits

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Of what Pillow reads; some of the others start programs or lead to further files."""
SEND = "send a multipart form with pictures as `image`, e.g. curl -F image=@photo.jpg"
NAME_LENGTH = 200


@dataclass(frozen=True, eq=False)
class Upload:
    """One picture of a request, still encoded."""

    name: str
    data: bytes
    boxes: list[tuple[float, ...]] | None
    """x, y, width, height and perhaps a score; None: nobody said."""


class _InMemory(MultiPartParser):
    spool_max_size = 0
    """No size from which on a file would be written to disk."""


async def read_form(request: Request, limits: Limits) -> list[Upload]:
    """The pictures of a request.

    Raises
    ------
    HTTPException
        408 it took too long, 413 it is too large, 415 it is no multipart form, 400 a damaged one, 422 it has other
        fields, no picture, or boxes that are none.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise HTTPException(415, f"the request is no multipart form; {SEND}")
    stream = _limited(request, limits)
    try:
        async with asyncio.timeout(limits.seconds):
            form = await _InMemory(request.headers, stream).parse()
            fields = form.multi_items()
            files = [(part.filename or "", await part.read()) for _, part in fields if isinstance(part, UploadFile)]
            await form.close()
    except TimeoutError:
        raise HTTPException(408, f"the request did not arrive within {limits.seconds:g} seconds") from None
    except MultiPartException as err:
        raise HTTPException(400, f"the form cannot be read ({err.message.rstrip('.')}); {SEND}") from None
    finally:
        await stream.aclose()
    texts: dict[str, Any] = {}
    for name, part in fields:
        is_file = isinstance(part, UploadFile)
        if name not in ("image", "boxes") or is_file != (name == "image") or name in texts:
            kind = "file" if is_file else "text"
            raise HTTPException(422, f"{kind} {name[:50]!r} of the form is not expected here or is given twice; {SEND}")
        if not is_file:
            texts[name] = part
    if not files:
        raise HTTPException(422, f"there is no picture in the form; {SEND}")
    names = [_named(name, number) for number, (name, _) in enumerate(files)]
    boxes = _boxes(texts.get("boxes"), names)
    return [Upload(name, data, rows) for name, (_, data), rows in zip(names, files, boxes, strict=True)]


async def discard(request: Request, limits: Limits) -> None:
    """Read what is left of a refused request, within limits: a client that is still sending hears no answer."""
    size = 0
    with suppress(ClientDisconnect, TimeoutError, RuntimeError):  # of a stream that is read already
        async with asyncio.timeout(5):
            async for chunk in request.stream():
                size += len(chunk)
                if size > 2 * limits.bytes:
                    break


def decode(uploads: Sequence[Upload], limits: Limits) -> list[Photo]:
    """Pictures as pixels, upright. Their headers are judged before any of them is unpacked.

    Raises
    ------
    HTTPException
        413 they are too large together, 415 one is no picture of a known format, 422 one is empty or damaged.
    """
    pixels = 0
    for upload in uploads:
        if not upload.data:
            raise HTTPException(422, f"{upload.name}: the file is empty")
        try:
            with Pil.open(BytesIO(upload.data), formats=FORMATS) as header:
                pixels += header.width * header.height
        except UnidentifiedImageError:
            raise HTTPException(415, f"{upload.name}: not an image in a known format (JPEG, PNG, WebP, …)") from None
        except Pil.DecompressionBombError:
            pixels += limits.megapixels * 1_000_000 + 1
        except Exception as err:  # decoders raise whatever they meet in damaged bytes
            raise HTTPException(422, f"{upload.name}: the image is damaged ({type(err).__name__})") from None
        if pixels > limits.megapixels * 1_000_000:
            raise HTTPException(
                413, f"{upload.name}: more than {limits.megapixels} megapixels in one request; send a smaller picture"
            )
    try:
        return [Photo(read_image(BytesIO(upload.data), upload.name), upload.name) for upload in uploads]
    except MetroError as err:
        raise HTTPException(422, str(err)) from None


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """The body, or a refusal as soon as it is known to be too large."""
    too_large = HTTPException(413, f"the request is larger than {limits.megabytes} MB; send fewer or smaller pictures")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.bytes:
        raise too_large
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.bytes:
            raise too_large
        yield chunk


def _named(filename: str, number: int) -> str:
    """What to call a picture: the last part of the client's path, of characters that can be shown."""
    name = PurePosixPath(filename.replace("\\", "/")).name[-NAME_LENGTH:]
    return "".join(c for c in name if c.isprintable()) or f"image {number}"


def _boxes(text: str | None, names: Sequence[str]) -> list[list[tuple[float, ...]] | None]:
    """Rows of boxes for each picture, or None."""
    if text is None:
        return [None] * len(names)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise HTTPException(422, "boxes: not JSON; expected [[x, y, width, height], ...] in pixels") from None
    wanted = [content] if len(names) == 1 else content
    if not isinstance(wanted, list) or len(wanted) != len(names):
        raise HTTPException(
            422, f"boxes: expected a list with one entry (boxes or null) for each of the {len(names)} pictures"
        )
    try:
        tables = [
            None if rows is None else box_table(rows, f"{name}: boxes")
            for rows, name in zip(wanted, names, strict=True)
        ]
    except MetroError as err:
        raise HTTPException(422, str(err)) from None
    return [
        None if table is None else [tuple(number for number in row if number is not None) for row in table]
        for table in tables
    ]
