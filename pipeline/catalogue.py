"""Stage `catalogue`: which records train and which test, by digest, and the mean poses that any model must beat.

Training depends on this small file instead of on all datasets, so that a change to a test set does not train again.
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
from pipeline.paths import BENCHMARK_SETS, BODY, MEAN_POSES, TRAIN_SETS, fits, shards
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
    validation = params.train.validation
    benchmarks = {name: benchmark.dataset for name, benchmark in params.benchmarks.items()}
    wanted = dict.fromkeys([*names, *([validation] if validation else []), *benchmarks.values()])
    datasets = {name: open_set(shards(name), fitted(name, params)) for name in wanted}
    entries = {name: entry(name, dataset, params) for name, dataset in datasets.items()}
    train = [entries[name] for name in names]
    stage.write_json(TRAIN_SETS, {"train": train, "validation": entries[validation] if validation else None})
    stage.write_json(BENCHMARK_SETS, {name: entries[dataset] for name, dataset in benchmarks.items()})
    mean_poses(
        [datasets[name] for name in names], BodyModel(read_npz(BODY), variants=partial(load_variant, params.body))
    ).save(MEAN_POSES)
    for item in train:
        meshes = f"{item['has_mesh']} with meshes ({item['fitted']} fitted)"
        joints = f"{item['has_3d']} with 3D and {item['has_2d']} with 2D joints"
        print(f"{item['name']}: {item['records']} records, {meshes}, {joints}")


def fitted(name: str, params: Params) -> Path | None:
    """Folder of a dataset's pseudo-meshes, if it has any."""
    return fits(name) if name in params.fit.datasets else None


def entry(name: str, dataset: ShardDataset, params: Params) -> dict[str, Any]:
    """What the catalogue says of one dataset."""
    from metro.data.records import MESH_ORIGINS
    from metro.data.shards import read_manifest

    sidecars = fitted(name, params)
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
