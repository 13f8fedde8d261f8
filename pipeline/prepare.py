"""Stage `prepare@NAME`: a raw dataset becomes shards.

It runs on this machine's cores or on a Dask cluster (`pipeline.environment`). An interrupted stage goes on where it
stopped.
"""

from __future__ import annotations

from metro.config import Params
from pipeline import stage
from pipeline.environment import environment
from pipeline.paths import shards


def main(params: Params, name: str) -> None:
    """Write the shards and manifest of a dataset."""
    from metro.sources.prepare import prepare

    config = params.datasets[name]
    work = stage.work_folder(params)
    manifest = prepare(name, config, params.body, work, scheduler=environment().dask)
    stage.publish_work(work, shards(name))
    print(f"{name}: {manifest['count']} records in {len(manifest['shards'])} shards")


if __name__ == "__main__":
    stage.run(main)
