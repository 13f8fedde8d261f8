"""`metro evaluate`, `metro attention` and `metro protocols`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from metro.cli.options import Batch, Between, Place, ToFolder, Word
from metro.words import ProtocolName


def evaluate(
    data: Path,
    /,
    *,
    model: Word = "open",
    protocol: ProtocolName = "open",
    out: ToFolder = Path("evaluation"),
    train: list[Path] | None = None,
    body: Place | None = None,
    batch_size: Batch = 64,
    bootstrap: Annotated[int, Parameter(validator=Between(1, 100_000))] = 1000,
    cases: Annotated[int, Parameter(validator=Between(1, 100))] = 4,
    limit: Annotated[int, Parameter(validator=Between(1, 10**9))] | None = None,
    device: Word | None = None,
) -> str:
    """Evaluate a model on a prepared dataset: tables, intervals, baselines and figures.

    Parameters
    ----------
    data
        Dataset folder written by a prepare stage.
    model
        Checkpoint or bundle folder, `open` for the one that ships, or an MLflow models:/ URI.
    protocol
        Definition of the numbers, see `metro protocols`.
    out
        Folder for metrics.json, result.json, samples.npz and the figures.
    train
        Dataset folders the model was trained on; the mean-pose baselines come from their labels. Without them they come
        from the benchmark's own labels, which flatters the baselines.
    body
        Licensed body model file, for models that were trained on one; a folder with `KIND_GENDER.npz` where people
        of the dataset are posed on the body of their gender.
    batch_size
        Images per forward pass.
    bootstrap
        Resamples of the confidence intervals.
    cases
        Best, median and worst cases drawn, of each.
    limit
        Evaluate the first records only.
    device
        Where to run, e.g. `cuda`; none: a GPU if there is one.
    """
    import sys
    from functools import partial

    import numpy as np
    from tqdm import tqdm

    from metro.body.load import load_variant
    from metro.body.model import BodyModel
    from metro.config import EvaluateConfig
    from metro.data.shards import ShardDataset
    from metro.evaluation.baselines import mean_poses
    from metro.evaluation.evaluate import evaluate as run
    from metro.evaluation.figures import write_figures
    from metro.evaluation.summary import table
    from metro.export.load import body_config, body_of, open_bundle
    from metro.model.device import device_of

    place, dataset = device_of(device), ShardDataset(data)
    if limit is not None:
        dataset = dataset.first(limit)
    bundle = open_bundle(model)
    body_model = BodyModel(body_of(bundle.meta, body), variants=partial(load_variant, body_config(bundle.meta, body)))
    baseline = None
    if train:
        baseline = mean_poses([ShardDataset(folder) for folder in train], body_model)
    elif np.any(dataset.labels["has_mesh"]):
        baseline = mean_poses([dataset], body_model, origin="the benchmark's own labels")
    config = EvaluateConfig(batch_size=batch_size, bootstrap=bootstrap, overlays=cases)
    about = {"model": model, **bundle.meta["origin"]}
    with tqdm(total=len(dataset), desc="evaluate", unit="img", disable=not sys.stderr.isatty()) as bar:
        result = run(
            bundle.model,
            dataset,
            body_model,
            protocol,
            config,
            baseline,
            place,
            benchmark=data.name,
            about=about,
            progress=lambda done, total: bar.update(done - bar.n),
        )
    result.write(out)
    write_figures(result, bundle.model, dataset, body_model, out, place)
    return f"{table(result.summary)}\nwritten to {out}"


def attention(
    data: Path,
    /,
    *,
    model: Word = "open",
    out: ToFolder = Path("attention"),
    samples: Annotated[int, Parameter(validator=Between(1, 10**6))] = 64,
    examples: Annotated[int, Parameter(validator=Between(1, 100))] = 4,
    body: Place | None = None,
    device: Word | None = None,
) -> dict[str, Any]:
    """Draw what the joint queries attend to, on average and for single images.

    Parameters
    ----------
    data
        Dataset folder written by a prepare stage.
    model
        Checkpoint or bundle folder, `open` for the one that ships, or an MLflow models:/ URI.
    out
        Folder for attention.npz, attention.json and the figures.
    samples
        Images averaged.
    examples
        Images drawn.
    body
        Licensed body model file, for models that were trained on one.
    device
        Where to run, e.g. `cuda`; none: a GPU if there is one.
    """
    from metro.config import AttentionConfig
    from metro.data.shards import ShardDataset
    from metro.evaluation.attention import measure_attention, write_attention
    from metro.export.load import body_of, open_bundle
    from metro.model.device import device_of

    place, bundle = device_of(device), open_bundle(model)
    dataset = ShardDataset(data)
    config = AttentionConfig(samples=samples, examples=examples)
    measured = measure_attention(bundle.model, dataset, config, place)
    summary = write_attention(measured, body_of(bundle.meta, body), bundle.levels, out)
    return {"written": str(out), **{k: summary[k] for k in ("images", "tokens", "layers")}}


def protocols() -> str:
    """Describe the benchmark protocols: joints, root, ground truth, metrics."""
    import textwrap

    from metro.evaluation.protocols import METRICS, PROTOCOLS

    blocks = []
    for protocol in PROTOCOLS.values():
        text = textwrap.fill(protocol.description, 110, initial_indent="  ", subsequent_indent="  ")
        rows = [f"    {METRICS[k].label:<24}{METRICS[k].meaning}" for k in protocol.metrics]
        blocks.append("\n".join([f"{protocol.name}: {protocol.title}", text, *rows]))
    return "\n\n".join(blocks)
