"""Stage `catalogue`: which records train and which test, by digest, and the mean poses that any model must beat.

Training depends on this small file instead of on all datasets, so that a change to a test set does not train again;
each variant of a study on one of its own, so that another variant does not train it again.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metro.config import Params
from metro.errors import MetroError
from metro.files import sha256_of
from pipeline import stage
from pipeline.paths import BENCHMARK_SETS, BODY, MEAN_POSES, STUDY_SETS, TRAIN_SETS, fits, shards
from pipeline.sets import open_set

if TYPE_CHECKING:
    from metro.data.shards import ShardDataset


def main(params: Params) -> None:
    """Write the catalogue and the mean poses."""
    from metro.body.arrays import read_npz
    from metro.body.load import load_variant
    from metro.body.model import BodyModel
    from metro.evaluation.baselines import mean_poses

    names = params.train_sets()
    if not names:
        raise MetroError("train.datasets: no training set; give a dataset the split `train` or name some here")
    opened = Entries()
    train = opened.training(params)
    stage.write_json(TRAIN_SETS, train)
    benchmarks = {name: opened.entry(benchmark.dataset, params) for name, benchmark in params.benchmarks.items()}
    stage.write_json(BENCHMARK_SETS, benchmarks)
    with stage.publish(STUDY_SETS) as folder:
        for name, run in params.study_runs.items():
            stage.write_json(folder / run.study / f"{run.variant}.json", opened.training(params.of_run(name)))
    mean_poses(
        [opened.dataset(name, params) for name in names],
        BodyModel(read_npz(BODY), variants=partial(load_variant, params.body)),
    ).save(MEAN_POSES)
    for item in train["train"]:
        meshes = f"{item['has_mesh']} with meshes ({item['fitted']} fitted)"
        joints = f"{item['has_3d']} with 3D and {item['has_2d']} with 2D joints"
        print(f"{item['name']}: {item['records']} records, {meshes}, {joints}")


class Entries:
    """What the catalogue says of datasets, each opened once however many trainings use it."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, bool], tuple[ShardDataset, dict[str, Any]]] = {}

    def training(self, params: Params) -> dict[str, Any]:
        """The sets that a training sees and the one that it is validated on."""
        validation = params.train.validation
        return {
            "train": [self.entry(name, params) for name in params.train_sets()],
            "validation": self.entry(validation, params) if validation else None,
        }

    def dataset(self, name: str, params: Params) -> ShardDataset:
        """A dataset, with the labels that these parameters give it."""
        return self._open(name, params)[0]

    def entry(self, name: str, params: Params) -> dict[str, Any]:
        """What the catalogue says of it."""
        return self._open(name, params)[1]

    def _open(self, name: str, params: Params) -> tuple[ShardDataset, dict[str, Any]]:
        folder = fitted(name, params)
        if (name, folder is not None) not in self._opened:
            dataset = open_set(shards(name), folder)
            self._opened[name, folder is not None] = dataset, entry(name, dataset, folder)
        return self._opened[name, folder is not None]


def fitted(name: str, params: Params) -> Path | None:
    """Folder of a dataset's pseudo-meshes, if it has any and they are used."""
    return fits(name) if params.train.fits and name in params.fit.datasets else None


def entry(name: str, dataset: ShardDataset, sidecars: Path | None) -> dict[str, Any]:
    """What the catalogue says of one dataset, whose pseudo-meshes lie in `sidecars`."""
    from metro.data.records import MESH_ORIGINS
    from metro.data.shards import read_manifest

    manifest = read_manifest(shards(name))
    contents = [shard["sha256"] for shard in manifest["shards"]]
    contents += [sha256_of(path) for path in sorted(sidecars.glob("fit-*.h5"))] if sidecars else []
    labels = dataset.labels
    return {
        "name": name,
        "shards": str(shards(name)),
        "fits": str(sidecars) if sidecars else None,
        "records": manifest["count"],
        "has_2d": int(labels["has_2d"].sum()),
        "has_3d": int(labels["has_3d"].sum()),
        "has_mesh": int(labels["has_mesh"].sum()),
        "fitted": int((labels["mesh_origin"] == MESH_ORIGINS.index("fit")).sum()),
        "digest": hashlib.sha256(json.dumps(contents).encode()).hexdigest(),
    }


if __name__ == "__main__":
    stage.run(main)
