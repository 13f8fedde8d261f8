"""Stage `prepare@NAME`: a raw dataset becomes shards.

``METRO_DASK`` names a running Dask scheduler to use instead of this machine's cores. An interrupted stage goes on where
it stopped.
"""

from __future__ import annotations

import os
from pathlib import Path

from metro.config import Params
from pipeline import stage
from pipeline.paths import shards


def main(params: Params, name: str) -> None:
    """Write the shards and manifest of a dataset."""
    from metro.sources.prepare import prepare

    config = params.datasets[name]
    settings = {"dataset": config.model_dump(mode="json"), **stage.section(params, "body")}
    work = stage.work_folder(f"prepare-{name}", settings, [Path("metro/data"), Path("metro/body"), Path("metro/viz")])
    manifest = prepare(name, config, params.body, work, scheduler=os.environ.get("METRO_DASK"))
    stage.publish_work(work, shards(name))
    print(f"{name}: {manifest['count']} records in {len(manifest['shards'])} shards")


if __name__ == "__main__":
    stage.run(main)
