"""The training loop: Lightning Fabric for devices and precision, everything else in plain sight.

A step is a pure function of the seed, the step number and the state: batches, augmentation and masks are keyed by
(seed, sample), dropout by (seed, step, rank), the learning rate by the step. A run killed at any moment therefore
continues from its last checkpoint to the same weights as a run that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from metro.body.arrays import BodyData, digest
from metro.body.load import load_variant
from metro.body.model import BodyModel
from metro.config import LossConfig, Params, TrainConfig
from metro.data.augment import normalise
from metro.data.loader import TrainStream
from metro.data.shards import ShardDataset
from metro.mesh.sampling import Level
from metro.model.losses import Targets, metro_loss
from metro.model.masking import query_mask
from metro.model.metro import Metro, build_model
from metro.random import Purpose, stream
from metro.training.checkpoint import Checkpoint
from metro.training.features import FeatureCache
from metro.training.freeze import Frozen
from metro.training.meter import Console, Meter
from metro.training.processes import launched
from metro.training.run import Figure, Log, Run, Validate
from metro.training.schedule import learning_rate


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves behind."""

    checkpoint: Checkpoint
    """The best checkpoint by validation, or the last one where nothing was validated."""
    curves: list[dict[str, float]]
    """Log records, means over `log_every` steps, and validations, with their `step`."""


def train(
    params: Params,
    datasets: Sequence[ShardDataset],
    body: BodyData,
    levels: Sequence[Level],
    work: Path,
    *,
    features: Path | None = None,
    log: Log | None = None,
    validate: Validate | None = None,
    figure: Figure | None = None,
) -> TrainResult:
    """Train a network, or go on with the run that `work` holds.

    Parameters
    ----------
    params
        Resolved parameters; `params.train.init` names the start weights.
    datasets
        Training sets, in the order of `params.train.datasets`.
    body, levels
        Body model of the annotations and its mesh levels.
    work
        Folder of this run's checkpoints. A run found there is resumed; it must have the same parameters.
    features
        Folder for the features of `train.views`, which other trainings may share; none: one in `work`.
    log
        Called with scalars and the step, on rank 0.
    validate
        Gives the metrics of a network (averaged weights, evaluation mode); the smallest `mpjpe` is kept as best.
    figure
        Called with the network after each validation, to draw.

    Raises
    ------
    MetroError
        `work` holds another run, it or `train.init` belongs to another body or other mesh levels, the loss or a
        gradient is not finite, it leaps (`train.spike`), the disk is full, another process of the training ended,
        `params.body` names no body for the gender of some people, `train.freeze` names no module or leaves nothing to
        train, or the features of `train.views` cannot be had.
    """
    with launched(params.train) as fabric:
        features = Path(features or Path(work) / "features")
        return _train(fabric, params, datasets, body, levels, Path(work), features, log, validate, figure)


def _train(
    fabric: Fabric,
    params: Params,
    datasets: Sequence[ShardDataset],
    body: BodyData,
    levels: Sequence[Level],
    work: Path,
    features: Path,
    log: Log | None,
    validate: Validate | None,
    figure: Figure | None,
) -> TrainResult:
    config = params.train
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)

    metro = build_model(params.model, body, levels)
    if config.channels_last:
        metro.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    frozen = Frozen(metro, config.freeze)
    optimizer = build_optimizer(metro, config)
    run = Run(work, params, digest(body), levels, metro, frozen, optimizer, fabric, log)
    start = run.begin()
    cache = FeatureCache(features, params, datasets, metro.backbone, fabric.is_global_zero) if config.views else None
    network: Any = torch.compile(metro) if config.compile else metro
    network, optimizer = fabric.setup(network, optimizer)
    posed = BodyModel(body, variants=partial(load_variant, params.body))
    for dataset in datasets:
        posed.require(dataset.genders)
    targets = Targets(posed, levels, params.model).to(fabric.device)
    batches = TrainStream(
        datasets,
        params.model,
        config,
        partial(query_mask, config.mask, metro.num_joints, levels[-1].up.shape[1]),
        cache.stored if cache else None,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        start_step=start,
        weights=[config.mixture[name] for name in config.datasets] if config.mixture else None,
    )
    meter, console = Meter(fabric, metro, config), Console(config.steps, start, not fabric.is_global_zero)
    for step, batch in zip(range(start, config.steps), batches, strict=False):
        meter.data_ready()
        rng = stream(config.seed, Purpose.DROPOUT, step, fabric.global_rank)
        torch.manual_seed(int(rng.integers(2**63)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config) * group["lr_share"]
        frozen.train(network)
        loss = config.loss.after((step + 1) / config.steps)
        terms = backward(fabric, network, targets, batch, loss, config.accumulate)
        norm = nn.utils.clip_grad_norm_(metro.parameters(), config.clip or math.inf)
        run.window.append(torch.stack([*terms.values(), norm]))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.update_average(step)
        meter.step_done()
        console.step_done()

        done = step + 1
        logs, validates, saves = (
            done % every == 0 or done == config.steps
            for every in (config.log_every, config.validate_every, config.save_every)
        )
        if logs or validates or saves:  # not in each step: to look at a number is to wait for the device
            run.refuse_nonfinite(done)
        if logs:
            means = run.close_window([*(f"loss/{name}" for name in terms), "grad_norm"], done)
            measured = meter.read()
            run.record(means | {"lr": learning_rate(step, config)}, done, measured)
            console.log(means["loss/total"], measured["speed/images_per_s"], done)
        if validate and validates:
            run.judge(validate, figure, done)
            console.say("validation " + "  ".join(f"{k} {1000 * v:.1f} mm" for k, v in run.metrics.items()), done)
            meter.restart()
        if saves:
            run.save(done)
            meter.restart()
    console.close()
    return TrainResult(run.result(best=validate is not None), run.curves)


def backward(
    fabric: Fabric, network: Any, targets: Targets, batch: Mapping[str, Tensor], loss: LossConfig, accumulate: int
) -> dict[str, Tensor]:
    """Add the gradient of a batch, in `accumulate` parts; returns its loss terms, `total` last."""
    full = any(loss.level_weights[1:])

    def over_processes(count: Tensor) -> Tensor:
        return cast("Tensor", fabric.all_reduce(count, reduce_op="mean"))

    pieces = {k: v.to(fabric.device, non_blocking=True).chunk(accumulate) for k, v in batch.items()}
    parts = [dict(zip(pieces, values, strict=True)) for values in zip(*pieces.values(), strict=True)]
    terms: dict[str, Tensor] = {}
    for i, part in enumerate(parts):
        with fabric.no_backward_sync(network, enabled=i + 1 < len(parts)):
            stored = part.get("features")
            images = normalise(part["image"], part["colour"]) if stored is None else stored.float()
            output = network(images, part["mask"], full=full)
            losses = metro_loss(output, targets(part), loss, over_processes)
            fabric.backward(losses["total"] / len(parts))
        for name, value in losses.items():
            terms[name] = terms.get(name, 0.0) + value.detach() / len(parts)
    return terms


def build_optimizer(metro: Metro, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW; weight decay spares vectors (biases, norms) and position tables, `backbone_lr` the backbone."""
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in metro.named_parameters():
        if parameter.requires_grad:
            spared = parameter.ndim <= 1 or "position" in name
            share = config.backbone_lr if name.startswith("backbone.") else 1.0
            groups.setdefault((spared, share), []).append(parameter)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(
        [
            {"params": parameters, "weight_decay": 0.0 if spared else config.weight_decay, "lr_share": share}
            for (spared, share), parameters in sorted(groups.items(), key=lambda one: one[0])
        ],
        lr=config.lr,
        fused=True,
    )
