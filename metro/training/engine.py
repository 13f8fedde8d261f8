"""The training loop: Lightning Fabric for devices and precision, everything else in plain sight.

A step is a pure function of the seed, the step number and the state: batches, augmentation and masks are keyed by
(seed, sample), dropout by (seed, step, rank), the learning rate by the step. A run killed at any moment therefore
continues from its last checkpoint to the same weights as a run that was never interrupted.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from tqdm import tqdm

from metro.body.arrays import BodyData, digest
from metro.body.model import BodyModel
from metro.config import Params, TrainConfig
from metro.data.augment import normalise
from metro.data.loader import Loader, make_loader
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.mesh.legacy import require_published
from metro.mesh.sampling import Level
from metro.model.losses import Targets, metro_loss
from metro.model.metro import Metro, build_model
from metro.model.official import convert
from metro.model.tensors import load_tensors
from metro.training.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from metro.training.flops import flops_per_image, matmul_flops
from metro.training.pretext import teach_backbone
from metro.training.restore import load_weights
from metro.training.schedule import learning_rate

RUN_SECTIONS = ("body", "sampling", "model", "train")
"""Parameters that a run depends on; a resumed one must have the same."""
Log = Callable[[Mapping[str, float], int], None]
Validate = Callable[[Metro], Mapping[str, float]]
Figure = Callable[[Metro, int], None]


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
        Training sets, in the order of `params.train_sets()`.
    body, levels
        Body model of the annotations and its mesh levels.
    work
        Folder of this run's checkpoints. A run found there is resumed; it must have the same parameters.
    log
        Called with scalars and the step, on rank 0.
    validate
        Gives the metrics of a network (averaged weights, evaluation mode); the smallest `mpjpe` is kept as best.
    figure
        Called with the network after each validation, to draw.

    Raises
    ------
    MetroError
        `work` holds another run, the loss or a gradient is not finite, it leaps (`train.spike`), or the disk
        is full.
    """
    config = params.train
    fabric = make_fabric(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)

    metro = build_model(params.model, body, levels)
    if config.channels_last:
        metro.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(metro, config)
    run = _Run(params, digest(body), levels, Path(work), metro, optimizer)

    mixture = [config.mixture[name] for name in params.train_sets()] if config.mixture else None

    def batches(settings: TrainConfig, first: int) -> Loader:
        return make_loader(
            list(datasets),
            params.model,
            settings,
            training=True,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
            start_step=first,
            weights=mixture,
            vertex_tokens=levels[-1].up.shape[1],
        )

    start = run.resume()
    if start == 0:
        load_start_weights(metro, config.init, run.body_digest, levels)
        if config.pretext.steps:
            teach_backbone(metro, params, batches, run.work, fabric)
        run.average = {k: v.detach().clone() for k, v in metro.state_dict().items()} if config.ema else None

    network: Any = torch.compile(metro) if config.compile else metro
    network, optimizer = fabric.setup(network, optimizer)
    run.window = [row.to(fabric.device) for row in run.window]
    targets = Targets(BodyModel(body), levels, params.model).to(fabric.device)
    full = any(config.loss.level_weights[1:])

    def over_processes(count: Tensor) -> Tensor:
        return cast("Tensor", fabric.all_reduce(count, reduce_op="mean"))

    meter = _Meter(fabric, metro, config)
    quiet = not (fabric.is_global_zero and sys.stderr.isatty())
    bar = tqdm(total=config.steps, initial=start, desc="train", unit="step", disable=quiet)
    for step, batch in zip(range(start, config.steps), batches(config, start), strict=False):
        meter.data_ready()
        torch.manual_seed(hash((config.seed, step, fabric.global_rank)) % 2**63)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        network.train()
        batch = {k: v.to(fabric.device, non_blocking=True) for k, v in batch.items()}
        parts = _split(batch, config.accumulate)
        terms: dict[str, Tensor] = {}
        for i, part in enumerate(parts):
            with fabric.no_backward_sync(network, enabled=i + 1 < len(parts)):
                images = normalise(part["image"], part["colour"])
                output = network(images, part["mask"], full=full)
                losses = metro_loss(output, targets(part), config.loss, over_processes)
                fabric.backward(losses["total"] / len(parts))
            for name, value in losses.items():
                terms[name] = terms.get(name, 0.0) + value.detach() / len(parts)
        norm = nn.utils.clip_grad_norm_(metro.parameters(), config.clip or math.inf)
        run.window.append(torch.stack([*terms.values(), norm]))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.update_average(step)
        meter.step_done()
        bar.update()

        done = step + 1
        logs, validates, saves = (
            done % every == 0 or done == config.steps
            for every in (config.log_every, config.validate_every, config.save_every)
        )
        if logs or validates or saves:  # not in each step: to look at a number is to wait for the device
            run.refuse_nonfinite(done)
        if logs:
            mean = torch.stack(run.window).mean(0)
            run.window.clear()
            mean = cast("Tensor", fabric.all_reduce(mean, reduce_op="mean"))
            means = dict(zip([f"loss/{name}" for name in terms] + ["grad_norm"], mean.tolist(), strict=True))
            run.refuse_leap(means["loss/total"], done)
            record = means | {"lr": learning_rate(step, config)} | meter.read()
            if fabric.is_global_zero:
                run.record(record, done, log)
                bar.set_postfix(loss=f"{means['loss/total']:.3g}", img_s=f"{record['speed/images_per_s']:.0f}")
                if bar.disable:
                    print(
                        f"step {done}/{config.steps}  loss {means['loss/total']:.4g}  "
                        f"{record['speed/images_per_s']:.0f} img/s",
                        flush=True,
                    )
        if validate and validates:
            if fabric.is_global_zero:
                with run.averaged():
                    metrics = dict(validate(metro))
                    run.keep_best(metrics, done)
                    if figure:
                        figure(metro, done)
                run.record({f"validation/{k}": v for k, v in metrics.items()}, done, log)
                print(
                    f"step {done}/{config.steps}  validation " + "  ".join(f"{k} {v:.4g}" for k, v in metrics.items()),
                    flush=True,
                )
            fabric.barrier()
            meter.restart()
        if saves:
            if fabric.is_global_zero:
                run.save(done)
            fabric.barrier()
            meter.restart()
    bar.close()
    best = run.work / "best"
    chosen = best if validate else run.work / _step_name(config.steps)
    result = TrainResult(load_checkpoint(chosen), run.curves)
    fabric.barrier()  # the caller may move what the other processes have just read
    return result


def make_fabric(config: TrainConfig) -> Fabric:
    """Lightning Fabric on the processes that torchrun started, else on all GPUs, else on `cpu_processes`.

    Without torchrun, Fabric starts the other processes itself: each runs the same command from its beginning.
    """
    devices, nodes = torch.cuda.device_count() or config.cpu_processes, 1
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    fabric = Fabric(devices=devices, num_nodes=nodes, precision=config.precision)
    fabric.launch()
    return fabric


def build_optimizer(metro: Metro, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW; weight decay spares vectors (biases, norms) and position tables."""
    named = [(n, p) for n, p in metro.named_parameters() if p.requires_grad]
    decayed = [p for n, p in named if p.ndim > 1 and "position" not in n]
    spared = [p for n, p in named if p.ndim <= 1 or "position" in n]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind([g for g in groups if g["params"]], lr=config.lr, fused=True)


def load_start_weights(metro: Metro, init: str, body_digest: str, levels: Sequence[Level]) -> None:
    """Start `metro` from `init`: `none`, `open` (the shipped checkpoint), a checkpoint folder or an official file.

    Raises
    ------
    MetroError
        The weights belong to another network, body model or other mesh levels.
    """
    if init == "none":
        return
    if Path(init).is_file():
        _, weights = convert(load_tensors(init))
        require_published(levels, init)
        load_weights(metro, weights, init)
    else:
        checkpoint = load_checkpoint(init)
        checkpoint.check(body_digest, levels)
        load_weights(metro, checkpoint.weights(), checkpoint.folder)


class _Run:
    """State of a run on disk: checkpoints, best checkpoint, curves, averaged weights."""

    def __init__(
        self,
        params: Params,
        body_digest: str,
        levels: Sequence[Level],
        work: Path,
        metro: Metro,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.params, self.body_digest, self.levels, self.work = params, body_digest, levels, work
        self.metro, self.optimizer = metro, optimizer
        self.average: dict[str, Tensor] | None = None
        self.best = math.inf
        self.metrics: dict[str, float] = {}
        self.curves: list[dict[str, float]] = []
        self.window: list[Tensor] = []  # of each step since the last log record: loss terms (total last), gradient norm
        self.lowest = math.inf  # mean loss of a window
        work.mkdir(parents=True, exist_ok=True)

    def resume(self) -> int:
        """Load the newest checkpoint and return the step to go on with; 0 when there is none."""
        found = latest_checkpoint(self.work)
        if found is None:
            return 0
        same = all(getattr(found.params, name) == getattr(self.params, name) for name in RUN_SECTIONS)
        if not same:
            raise MetroError(f"{self.work}: holds a run with other parameters; remove it or train in another folder")
        found.check(self.body_digest, self.levels)
        state = found.training_state()
        load_weights(self.metro, state["weights"], found.folder)
        self.optimizer.load_state_dict(state["optimizer"])
        self.average, self.best, self.metrics = state["average"], state["best"], state["metrics"]
        self.curves, self.window = json.loads(state["curves"]), state["window"]
        self.lowest = min((r["loss/total"] for r in self.curves if "loss/total" in r), default=math.inf)
        return found.step

    def save(self, step: int) -> None:
        """Write the checkpoint of `step` and drop the ones that are no longer kept."""
        state = {
            "weights": self.metro.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "best": self.best,
            "metrics": self.metrics,
            "curves": json.dumps(self.curves),
            "window": self.window,
        }
        self._write(_step_name(step), step, self.metrics, state)
        for old in sorted(self.work.glob("step-*"))[: -self.params.train.keep]:
            shutil.rmtree(old)

    def keep_best(self, metrics: dict[str, float], step: int) -> None:
        """Keep the weights the network now has if they are the best so far."""
        self.metrics = metrics
        if metrics["mpjpe"] < self.best:
            self.best = metrics["mpjpe"]
            self._write("best", step, metrics, None)

    def refuse_nonfinite(self, step: int) -> None:
        """Stop a run whose loss or gradient norm was not finite since the last log record, before its weights are kept.

        A gradient norm that is not finite is so in every process.
        """
        finite = torch.stack(self.window).isfinite().all(1).tolist()
        if not all(finite):
            first = finite.index(False)
            loss, norm = self.window[first][-2:].tolist()
            raise MetroError(
                f"train: loss {loss:.4g} and gradient norm {norm:.4g} at step {step - len(finite) + first + 1} are not "
                f"finite; the last good checkpoint is in {self.work}; lower train.lr or set train.clip"
            )

    def refuse_leap(self, loss: float, step: int) -> None:
        """Stop a run whose loss, as the mean over a log window, leaps; every process sees the same mean."""
        limit = self.params.train.spike
        if limit and loss > limit * self.lowest:
            raise MetroError(
                f"train: the loss, once {self.lowest:.4g}, leapt to {loss:.4g} in the {self.params.train.log_every} "
                f"steps before step {step}; the last checkpoint is in {self.work}; lower train.lr, or raise train.spike"
            )
        self.lowest = min(self.lowest, loss)

    def record(self, scalars: Mapping[str, float], step: int, log: Log | None) -> None:
        self.curves.append({"step": step, **scalars})
        if log:
            log(scalars, step)

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Exponential moving average of weights and buffers; integer counters are copied.

        The decay grows with the step, so that the average forgets the start weights early.
        """
        if self.average is None or self.params.train.ema is None:
            return
        decay = min(self.params.train.ema, (1 + step) / (10 + step))
        for name, value in self.metro.state_dict().items():
            mean = self.average[name] = self.average[name].to(value.device)
            mean.lerp_(value, 1 - decay) if value.is_floating_point() else mean.copy_(value)

    def averaged(self) -> _Averaged:
        """Context in which the network has its averaged weights (if any) and is in evaluation mode."""
        return _Averaged(self.metro, self.average)

    def _write(self, name: str, step: int, metrics: Mapping[str, float], state: Mapping[str, Any] | None) -> None:
        weights = self.average if self.average is not None else self.metro.state_dict()
        save_checkpoint(
            self.work / name,
            weights,
            params=self.params,
            step=step,
            metrics=metrics,
            body_digest=self.body_digest,
            levels=self.levels,
            training_state=state,
        )


class _Averaged:
    def __init__(self, metro: Metro, average: Mapping[str, Tensor] | None) -> None:
        self.metro, self.average = metro, average

    def __enter__(self) -> None:
        self.metro.eval()
        if self.average is not None:
            self.own = {k: v.detach().clone() for k, v in self.metro.state_dict().items()}
            self.metro.load_state_dict(dict(self.average))

    def __exit__(self, *_: object) -> None:
        if self.average is not None:
            self.metro.load_state_dict(self.own)


class _Meter:
    """Throughput, share of time spent waiting for data, model FLOP utilisation and memory, since the last reading."""

    def __init__(self, fabric: Fabric, metro: Metro, config: TrainConfig) -> None:
        self.device, self.processes, self.metro, self.config = fabric.device, fabric.world_size, metro, config
        self.restart()

    @cached_property
    def utilisation(self) -> float:
        """Of one image per second; backward costs two forward."""
        kind = torch.bfloat16 if self.config.precision == "bf16-mixed" else torch.float32
        return 3 * flops_per_image(self.metro) / (self.processes * matmul_flops(self.device, kind))

    def restart(self) -> None:
        self.steps, self.waited, self.began = 0, 0.0, time.perf_counter()
        self.last = self.began

    def data_ready(self) -> None:
        self.waited += time.perf_counter() - self.last

    def step_done(self) -> None:
        self.steps += 1
        self.last = time.perf_counter()

    def read(self) -> dict[str, float]:
        elapsed = time.perf_counter() - self.began
        speed = self.steps * self.config.batch_size / elapsed
        record = {
            "speed/images_per_s": speed,
            "speed/data_wait": self.waited / elapsed,
            "speed/mfu": speed * self.utilisation,
            "memory/process_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }
        if self.device.type == "cuda":
            record["memory/gpu_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
        self.restart()
        return record


def _split(batch: Mapping[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    pieces = {k: v.chunk(parts) for k, v in batch.items()}
    return [dict(zip(pieces, values, strict=True)) for values in zip(*pieces.values(), strict=True)]


def _step_name(step: int) -> str:
    return f"step-{step:08d}"
