"""Stage `fit@NAME`: pseudo-meshes for a dataset that has joints only.

It runs on this machine's cores or on a Dask cluster (`pipeline.environment`). An interrupted stage goes on where it
stopped.
"""

from __future__ import annotations

from metro.config import Params
from pipeline import stage, tracking
from pipeline.environment import environment
from pipeline.flat import numbers
from pipeline.paths import fits, shards

MEANS = ("error_3d_mm", "error_2d_percent", "iterations")


def main(params: Params, name: str) -> None:
    """Fit the body to every record, and keep what passes the quality gate."""
    from metro.data.shards import ShardDataset
    from metro.fitting.dataset import fit_dataset
    from pipeline.tracking.pictures import fitted

    work = stage.work_folder(params)
    with tracking.tracked(params) as run:
        run.dataset(name, stage.inputs().files[str(shards(name))], shards(name), "fitting")
        summary = fit_dataset(shards(name), work, params.body, params.fit, scheduler=environment().dask)
        run.log(numbers(summary))
        fitted(ShardDataset(shards(name)), work, params.body, run)
        stage.publish_work(work, fits(name))
    share = summary["accepted"] / max(summary["count"], 1)
    means = numbers({key: {"mean": (summary[key] or {}).get("mean")} for key in MEANS})
    counts = numbers({key: summary[key] for key in ("accepted", "kept_meshes", "rejected", "converged")})
    stage.write_metrics(f"fit/{name}", {"accepted_share": round(share, 4), **counts, **means})
    print(
        f"{name}: {summary['accepted']} of {summary['count']} fits accepted ({share:.0%}), {summary['seconds']:.0f} s"
    )


if __name__ == "__main__":
    stage.run(main)
