"""The HTTP interface: predictions, health, what runs here, how to call it, and the page to try it.

Nothing is written to disk, and no path of a client is opened: a file name only labels what came with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from metro.errors import MetroError
from metro.export.predictor import Predictor
from metro.serve.answer import Options, answer
from metro.serve.batches import Batches
from metro.serve.document import PREDICT, SUMMARY, document
from metro.serve.limits import WORKERS, Limits
from metro.serve.upload import Upload, decode, discard, read_form
from metro.version import __version__

PAGE = {
    "/": ("metro.serve", "page/page.html", "text/html"),
    "/page.css": ("metro.serve", "page/page.css", "text/css"),
    "/page.js": ("metro.serve", "page/page.js", "text/javascript"),
    "/turntable.js": ("metro.viz", "templates/turntable.js", "text/javascript"),
    "/examples/1.jpg": ("metro.serve", "page/examples/1.jpg", "image/jpeg"),
    "/examples/2.jpg": ("metro.serve", "page/examples/2.jpg", "image/jpeg"),
    "/examples/3.jpg": ("metro.serve", "page/examples/3.jpg", "image/jpeg"),
}
"""Path → package, file and type of what the page consists of."""
OWN_ONLY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self' blob:"
)
"""The browser loads nothing from elsewhere."""
CLOSED_REQUEST = 499
"""The client has gone: nobody reads this."""


@dataclass
class _Count:
    waiting: int = 0
    """Requests in hand: being read, waiting or worked on."""
    answered: int = 0


def create_app(predictor: Predictor, limits: Limits | None = None) -> FastAPI:
    """The application.

    Parameters
    ----------
    predictor
        What answers.
    limits
        What a request may cost.
    """
    limits = limits or Limits()
    count, threads = _Count(), anyio.CapacityLimiter(WORKERS)
    batches = Batches(predictor, limits.batch_size, limits.batch_ms / 1000)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(batches.close)

    def work(uploads: Sequence[Upload], options: Options) -> Response:
        photos = decode(uploads, limits)
        boxes = [
            # Several threads look for people; only the network is shared.
            predictor.detector(photo.pixels) if upload.boxes is None and predictor.detector else upload.boxes
            for photo, upload in zip(photos, uploads, strict=True)
        ]
        people = sum(1 if rows is None else len(rows) for rows in boxes)
        if people > limits.people:
            raise HTTPException(
                413, f"{people} people are in the pictures; this server takes {limits.people} in one request"
            )
        asked = [batches.submit(photo, rows, options.left_hand) for photo, rows in zip(photos, boxes, strict=True)]
        return answer(photos, [one.result() for one in asked], options)

    app = FastAPI(title="metro", version=__version__, summary=SUMMARY, docs_url=None, redoc_url=None, lifespan=lifespan)

    @app.post("/predict", **PREDICT)
    async def predict(request: Request, options: Annotated[Options, Query()]) -> Response:
        """Meshes and joints of the people of one or several pictures."""
        if count.waiting >= limits.waiting:
            await discard(request, limits)
            told = f"{limits.waiting} requests are waiting already; try again in a moment"
            raise HTTPException(429, told, {"Retry-After": "1"})
        count.waiting += 1
        try:
            uploads = await read_form(request, limits)
            response = await anyio.to_thread.run_sync(work, uploads, options, limiter=threads)
        except HTTPException as err:
            if err.status_code != 408:  # nobody waits for a slow client twice
                await discard(request, limits)
            raise
        except ClientDisconnect:
            return Response(status_code=CLOSED_REQUEST)
        finally:
            count.waiting -= 1
        count.answered += 1
        return response

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server lives, how many requests it has in hand and how many it has answered."""
        return {"status": "ok", "waiting": count.waiting, "answered": count.answered}

    @app.get("/version")
    async def version() -> dict[str, Any]:
        """Which network answers, what it was trained on, and the limits of a request."""
        meta = predictor.network.meta
        model = {key: meta[key] for key in ("body", "joint_names", "licence", "origin")}
        return {"metro": __version__, "model": model, "limits": asdict(limits)}

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        page = document(app.openapi(), str(request.base_url).rstrip("/"))
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": OWN_ONLY})

    for path, (package, file, kind) in PAGE.items():
        app.add_api_route(path, _file(package, file, kind), include_in_schema=False)

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, err: RequestValidationError) -> JSONResponse:
        await discard(request, limits)
        first = err.errors()[0]
        known = f"; known: {', '.join(Options.model_fields)}" if first["type"] == "extra_forbidden" else ""
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}{known}"}, 422)

    @app.exception_handler(MetroError)
    async def mistaken(request: Request, err: MetroError) -> JSONResponse:
        return JSONResponse({"detail": str(err)}, 422)

    @app.exception_handler(Exception)
    async def failed(request: Request, err: Exception) -> JSONResponse:
        return JSONResponse({"detail": "the server failed; its log says why"}, 500)

    return app


def _file(package: str, file: str, kind: str) -> Any:
    content = (resources.files(package) / file).read_bytes()

    async def send() -> Response:
        return Response(content, media_type=kind, headers={"Content-Security-Policy": OWN_ONLY})

    return send
