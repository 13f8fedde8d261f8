"""Stage `study@RUN`: one training of a study, judged on the study's benchmark.

It differs from stage `train` in the parameters that `study_runs` says, and shares the features of a frozen backbone
with every run that sees the same views. The scores of its people, a row each, are kept for `study-report`.
"""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metro.config import Params, StudyRun, merge_params
from metro.errors import MetroError
from pipeline import stage, tracking
from pipeline.environment import environment
from pipeline.evaluate import judge
from pipeline.network import load_network
from pipeline.paths import COSTS, STUDIES, STUDY_MODELS, STUDY_SETS, TRAIN_SETS, shards, study_run
from pipeline.train import train_in


def main(params: Params, name: str) -> None:
    """Train, judge, and note what it cost."""
    from metro.data.shards import ShardDataset
    from metro.evaluation.studies import COST, NAMES
    from metro.training.checkpoint import copy_weights
    from metro.training.flops import cost

    planned, varied = params.study_runs[name], params.of_run(name)
    place, dataset = study_run(planned), shards(planned.dataset)
    catalogue = STUDY_SETS / planned.study / f"{planned.variant}.json"
    work = stage.work_folder(varied)
    if environment().rank > 0:  # started by another process to share its training, which does the rest
        train_in(work, varied, tracking.Run(), catalogue)
        return
    with tracking.tracked(
        varied,
        name=f"{planned.study} {planned.variant} seed {planned.seed}",
        group=group(params, planned),
        grouped=alike(params, planned),
        tags={"study": planned.study, "variant": planned.variant, "seed": str(planned.seed)},
        work=work,
    ) as run:
        records: list[Mapping[str, float]] = []
        result = train_in(work, varied, run, catalogue, records.append)
        spent = measured(varied, records)
        model = copy_weights(result.checkpoint.folder, STUDY_MODELS / place)
        run.dataset(planned.dataset, stage.inputs().files[str(dataset)], dataset, "evaluation")
        judged, _ = judge(model, planned.benchmark, varied)
        costs, numbers = cost(load_network(model), varied.train), judged.headline()
        run.log({f"{planned.benchmark}/{key}": value for key, value in numbers.items()})
        run.log({f"cost/{key}": value for key, value in (costs | spent).items()})
        with stage.publish(STUDIES / place) as folder:
            judged.write(folder)
            stage.write_json(folder / COST, costs)
            np.savez(folder / NAMES, names=ShardDataset(dataset).labels["keys"][judged.samples.index])
            run.artifact(folder / "result.json", f"evaluate/{planned.benchmark}")
            run.artifact(folder / "samples.npz", f"evaluate/{planned.benchmark}")
        stage.write_metrics(f"studies/{place}", {**numbers, **costs})
    if spent:
        stage.write_json(COSTS / f"{place}.json", spent)
    stage.forget_work(work)
    told = {**numbers, **costs, **spent}
    print(f"{name}: " + "  ".join(f"{key} {value:g}" for key, value in told.items()))


def measured(params: Params, records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What the steps of log records took on this machine, and the memory of this process; nothing where all were done
    before."""
    rates = [record["speed/images_per_s"] for record in records if record.get("speed/images_per_s")]
    if not rates:
        return {}
    rate = float(np.median(rates))
    return {
        "views_per_s": rate,
        "seconds": params.train.steps * params.train.batch_size / rate,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def group(params: Params, run: StudyRun) -> str:
    """Name of the tracked study: equal for all runs that may be compared with one another."""
    if not TRAIN_SETS.is_file():
        raise MetroError(f"{TRAIN_SETS}: missing; `dvc repro catalogue` makes it")
    content = json.dumps(alike(params, run), sort_keys=True).encode() + TRAIN_SETS.read_bytes()
    return f"study-{run.study}:{hashlib.sha256(content).hexdigest()[:12]}"


def alike(params: Params, run: StudyRun) -> dict[str, Any]:
    """What the runs of a study have in common."""
    sections = merge_params(stage.section(params, "body", "sampling", "model", "train"), run.settings)
    del sections["train"]["seed"]
    return {"study": run.study, "benchmark": run.benchmark, **sections}


if __name__ == "__main__":
    stage.run(main)
