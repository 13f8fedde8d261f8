"""Pictures and the shipped network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import resources

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient

import metro
from metro.detect import Detector
from metro.export.load import predictor_of
from metro.export.predictor import Predictor
from metro.serve.app import create_app
from metro.serve.limits import Limits

Serving = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    return metro.load("open", detector="none")  # pictures here show nobody


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """A picture (240, 320, 3), RGB."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 5)


@pytest.fixture(scope="session")
def png(pixels: np.ndarray) -> bytes:
    return encoded(pixels)


@pytest.fixture(scope="session")
def somebody() -> np.ndarray:
    """A picture of a person, 320 pixels wide, RGB."""
    bgr = cv2.imread(str(resources.files("metro.serve") / "page/examples/1.jpg"))
    assert bgr is not None
    return cv2.resize(bgr, (320, round(320 * bgr.shape[0] / bgr.shape[1])), interpolation=cv2.INTER_AREA)[..., ::-1]


@pytest.fixture(scope="session")
def serving(predictor: Predictor) -> Serving:
    """Makes clients of a running application."""

    @contextmanager
    def client(limits: Limits | None = None, detector: Detector | None = None) -> Iterator[TestClient]:
        app = create_app(predictor_of(predictor.network, detector), limits)
        with TestClient(app, raise_server_exceptions=False) as running:
            yield running

    return client


def encoded(rgb: np.ndarray, kind: str = ".png") -> bytes:
    return cv2.imencode(kind, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()
