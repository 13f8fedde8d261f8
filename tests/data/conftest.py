"""A prepared dataset of made-up people, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metro import sources
from metro.config import BodyConfig, CropConfig, DatasetConfig
from metro.sources import prepare as preparing
from tests.data import people


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch):
    """`prepare(out, count, per_shard, bad, **settings)`: made-up people through `metro.sources.prepare`."""

    def run(
        out: Path, count: int = 20, per_shard: int = 8, bad: tuple[int, ...] = (), **settings: Any
    ) -> dict[str, Any]:
        options = {name: settings.pop(name) for name in ("workers", "scheduler") if name in settings}
        made = people.Made(count, bad, settings.pop("left", ()), settings.pop("raw", ()))
        monkeypatch.setattr(sources, "adapter", lambda name: made)
        config = DatasetConfig(crop=CropConfig(box_px=64, margin=1.5), shard_size=per_shard, **settings)
        return preparing.prepare("made", config, BodyConfig(), out, progress=False, **{"workers": 1, **options})

    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 20 made-up people in three shards. Not to be changed."""
    folder = tmp_path_factory.mktemp("data") / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "adapter", lambda name: people.Made(20))
        config = DatasetConfig(crop=CropConfig(box_px=64, margin=1.5), shard_size=8)
        preparing.prepare("made", config, BodyConfig(), folder, workers=1, progress=False)
    return folder
