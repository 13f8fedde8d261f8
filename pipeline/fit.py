"""Stage `fit@NAME`: pseudo-meshes for a dataset that has joints only.

``METRO_DASK`` names a running Dask scheduler to use instead of this machine's cores. An interrupted stage goes on where
it stopped.
"""

from __future__ import annotations

import os
from pathlib import Path

from metro.config import Params
from pipeline import stage, tracking
from pipeline.paths import fits, shards

ERRORS = ("error_3d_mm", "error_2d_percent")


def main(params: Params, name: str) -> None:
    """Fit the body to every record, and keep what passes the quality gate."""
    from metro.fitting.dataset import fit_dataset

    inputs = [shards(name) / "manifest.json", Path("metro/fitting"), Path("metro/body")]
    work = stage.work_folder(f"fit-{name}", stage.section(params, "fit", "body"), inputs)
    with tracking.tracked(f"fit@{name}", params, [shards(name)]) as run:
        summary = fit_dataset(shards(name), work, params.body, params.fit, scheduler=os.environ.get("METRO_DASK"))
        run.log(stage.flat_numbers(summary))
        stage.write_json(work / "run.json", run.pointer())
    stage.publish_work(work, fits(name))
    share = summary["accepted"] / max(summary["count"], 1)
    errors = stage.flat_numbers({key: {"mean": (summary[key] or {}).get("mean")} for key in ERRORS})
    stage.write_metrics(f"fit/{name}", {"accepted_share": round(share, 4), **errors})
    print(f"{name}: {summary['accepted']} of {summary['count']} fits accepted ({share:.0%})")


if __name__ == "__main__":
    stage.run(main)
