"""Stage `prepare@NAME`: a raw dataset becomes shards.

It runs on this machine's cores or on a Dask cluster (`pipeline.environment`). An interrupted stage goes on where it
stopped.
"""

from __future__ import annotations

from metro.config import Params
from pipeline import stage, tracking
from pipeline.environment import environment
from pipeline.flat import numbers
from pipeline.paths import shards

KEPT = ("count", "image_size", "has_2d", "has_3d", "has_mesh", "box_px")


def main(params: Params, name: str) -> None:
    """Write the shards and manifest of a dataset, and note what it holds."""
    from metro.sources.prepare import prepare
    from pipeline.tracking.pictures import chart

    work = stage.work_folder(params)
    with tracking.tracked(params) as run:
        manifest = prepare(name, params.datasets[name], params.body, work, scheduler=environment().dask)
        for file, _, digest in manifest["raw"]:
            run.dataset(file, digest, params.datasets[name].root or work, "raw")
        facts = {key: manifest["statistics"][key] for key in KEPT}
        told = numbers({**facts, "unreadable": manifest["skipped"], "left": {"all": sum(manifest["left"].values())}})
        run.log(told | numbers({"left": manifest["left"]}))
        chart(manifest, work, run)
        stage.publish_work(work, shards(name))
    stage.write_metrics(f"prepare/{name}", told)
    for check in manifest["checks"]:
        if not check.startswith("ok"):
            print(f"{name}: {check}")
    left = sum(manifest["left"].values())
    print(
        f"{name}: {manifest['count']} records in {len(manifest['shards'])} shards"
        + (f", {left} left out" if left else "")
        + (f", {manifest['skipped']} unreadable" if manifest["skipped"] else "")
    )


if __name__ == "__main__":
    stage.run(main)
