"""Run the application on a port of this machine until it is told to stop."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import threading
import webbrowser
from types import FrameType

import numpy as np
import uvicorn

from metro.errors import MetroError
from metro.export.predictor import Predictor, overlay
from metro.serve.app import create_app
from metro.serve.limits import Limits

GRACE_SECONDS = 30
"""Time for requests in hand when the server is told to stop."""
BACKLOG = 128
"""Connections that the system holds before the server takes them."""
WARM_SIDE = 64


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises
    ------
    MetroError
        The port is in use or reserved, or this machine has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as err:
        raise MetroError(f"--host {host}: no such address ({getattr(err, 'strerror', None) or err})") from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as err:
        listening.close()
        if err.errno == errno.EADDRINUSE:
            raise MetroError(f"port {port} of {host} is in use; choose another with --port PORT") from None
        raise MetroError(f"port {port} of {host}: {err.strerror}; choose another with --port or --host") from None
    return listening


def serve(
    predictor: Predictor,
    listening: socket.socket,
    limits: Limits,
    *,
    browser: bool = False,
) -> None:
    """Answer until SIGINT or SIGTERM; requests in hand are answered before it ends.

    `browser` opens the page in one as soon as the server answers.
    """
    _warm(predictor)
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    config = uvicorn.Config(
        create_app(predictor, limits),
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # what is wrong with a form, its client is told
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, _stopped)  # uvicorn takes them while it runs, and raises them again when it has ended
    print(f"page {address}/ · how to call it {address}/docs · Ctrl-C stops it", flush=True)
    if browser:
        threading.Thread(target=_open, args=(address,), daemon=True).start()
    uvicorn.Server(config).run([listening])


def _warm(predictor: Predictor) -> None:
    """Compile and allocate what the first request would wait for."""
    grey = np.full((WARM_SIDE, WARM_SIDE, 3), 128, np.uint8)
    if predictor.detector is not None:
        predictor.detector(grey)
    overlay(predictor(grey, (0, 0, WARM_SIDE, WARM_SIDE)), grey)


def _open(address: str) -> None:
    if not webbrowser.open(address):
        print(f"no browser was found; open {address}/ in one", flush=True)


def _stopped(signum: int, frame: FrameType | None) -> None:
    """The server has ended already, as it was told to."""
