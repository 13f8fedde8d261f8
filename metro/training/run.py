"""A run on disk: its checkpoints, the best of them, its curves and its averaged weights, and the rules that stop it.

Every process holds one; only the first writes.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from metro.config import Params
from metro.errors import MetroError
from metro.files import readable
from metro.mesh.legacy import require_published
from metro.mesh.sampling import Level
from metro.model.metro import Metro
from metro.model.official import convert
from metro.model.tensors import load_tensors
from metro.training.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from metro.training.freeze import Frozen
from metro.training.restore import load_weights

RUN_SECTIONS = ("body", "sampling", "model", "train")
"""Parameters that a run depends on; a resumed one must have the same."""
Log = Callable[[Mapping[str, float], int], None]
Validate = Callable[[Metro], Mapping[str, float]]
Figure = Callable[[Metro, int], None]


class Run:
    """State of a run beside the network and the optimizer, which it saves and restores.

    Parameters
    ----------
    work
        Folder of its checkpoints.
    params, body_digest, levels
        What the run is of; they travel in every checkpoint.
    log
        Called with scalars and the step, in the first process.
    """

    def __init__(
        self,
        work: Path,
        params: Params,
        body_digest: str,
        levels: Sequence[Level],
        metro: Metro,
        frozen: Frozen,
        optimizer: torch.optim.Optimizer,
        fabric: Fabric,
        log: Log | None,
    ) -> None:
        self.work, self.params, self.body_digest, self.levels = work, params, body_digest, levels
        self.metro, self.frozen, self.optimizer, self.fabric, self._log = metro, frozen, optimizer, fabric, log
        self.average: Metro | None = None
        self.best = math.inf
        self.metrics: dict[str, float] = {}
        self.curves: list[dict[str, float]] = []
        self.window: list[Tensor] = []  # of each step since the last log record: loss terms (total last), gradient norm
        self.lowest = math.inf  # mean loss of a window

    def begin(self) -> int:
        """Load the newest checkpoint, or the start weights where there is none; returns the step to go on with.

        The first process looks for it: what the others would find might be another.
        """
        found = latest_checkpoint(self.work) if self.fabric.is_global_zero else None
        folder = self.fabric.broadcast(found.folder if found else None)
        if folder is not None and found is None:
            found = load_checkpoint(folder)
        if found is None:
            load_start_weights(self.metro, self.params.train.init, self.body_digest, self.levels)
        if self.params.train.ema is not None:
            self.average = copy.deepcopy(self.metro).eval().to(self.fabric.device)
        if found is None:
            return 0
        same = all(getattr(found.params, name) == getattr(self.params, name) for name in RUN_SECTIONS)
        if not same:
            raise MetroError(f"{self.work}: holds a run with other parameters; remove it or train in another folder")
        found.check_body(self.body_digest)
        found.check_levels(self.levels)
        state = found.training_state()
        with readable(found.folder, f"remove {self.work} to train from the start"):
            load_weights(self.metro, state["weights"], found.folder)
            if self.average is not None:
                load_weights(self.average, state["average"], found.folder)
            self.optimizer.load_state_dict(state["optimizer"])
            self.best, self.metrics, self.curves = state["best"], state["metrics"], json.loads(state["curves"])
            self.window = [row.to(self.fabric.device) for row in state["window"]]
            self.lowest = min((r["loss/total"] for r in self.curves if "loss/total" in r), default=math.inf)
        return found.step

    @property
    def judged(self) -> Metro:
        """The network that is validated and exported: with averaged weights, if they are averaged."""
        return self.metro if self.average is None else self.average

    @torch.no_grad()
    def update_average(self, step: int) -> None:
        """Exponential moving average of weights and buffers; integer counters are copied, what is frozen is left out.

        The decay grows with the step, so that the average forgets the start weights early.
        """
        if self.average is None or self.params.train.ema is None:
            return
        # torch's AveragedModel would copy its step counter to the device: a wait for the device in every step.
        decay = min(self.params.train.ema, (1 + step) / (10 + step))
        weights, counters = self._averaged
        get_ema_multi_avg_fn(decay)(*zip(*weights, strict=True), 0)  # one call for all of them
        for mean, value in counters:
            mean.copy_(value)

    @cached_property
    def _averaged(self) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """Averaged tensors and the network's own: weights and real buffers, then counters. Both networks keep theirs
        from the first step on."""
        averages, own = cast("Metro", self.average).state_dict(), self.metro.state_dict()
        pairs = [(averages[name], value) for name, value in own.items() if not self.frozen.holds(name)]
        return [p for p in pairs if p[1].is_floating_point()], [p for p in pairs if not p[1].is_floating_point()]

    def refuse_nonfinite(self, done: int) -> None:
        """Stop a run whose loss or gradient norm was not finite since the last log record, before its weights are kept.

        A gradient norm that is not finite is so in every process.
        """
        finite = torch.stack(self.window).isfinite().all(1).tolist()
        if not all(finite):
            first = finite.index(False)
            loss, norm = self.window[first][-2:].tolist()
            raise MetroError(
                f"loss {loss:.4g} and gradient norm {norm:.4g} at step {done - len(finite) + first + 1} are not "
                f"finite; {self._kept()}; lower train.lr or set train.clip"
            )

    def close_window(self, names: list[str], done: int) -> dict[str, float]:
        """Means over the steps since the last log record and over the processes, by name.

        Stops a run whose loss leaps (`train.spike`); every process sees the same mean.
        """
        mean = cast("Tensor", self.fabric.all_reduce(torch.stack(self.window).mean(0), reduce_op="mean"))
        self.window.clear()
        means = dict(zip(names, mean.tolist(), strict=True))
        loss, limit = means["loss/total"], self.params.train.spike
        if limit and loss > limit * self.lowest:
            raise MetroError(
                f"the loss, once {self.lowest:.4g}, leapt to {loss:.4g} in the {self.params.train.log_every} "
                f"steps before step {done}; {self._kept()}; lower train.lr, or raise train.spike"
            )
        self.lowest = min(self.lowest, loss)
        return means

    def record(self, scalars: Mapping[str, float], done: int, measured: Mapping[str, float] | None = None) -> None:
        """Add to the curves, and tell the caller, who also hears what was `measured` of the machine, never the same."""
        if self.fabric.is_global_zero:
            self.curves.append({"step": done, **scalars})
            if self._log:
                self._log({**scalars, **(measured or {})}, done)

    def judge(self, validate: Validate, figure: Figure | None, done: int) -> None:
        """Validate, and keep the weights if they are the best so far; the other processes wait."""
        if self.fabric.is_global_zero:
            network = self.judged.eval()
            self.metrics = dict(validate(network))
            if self.metrics["mpjpe"] < self.best:
                self.best = self.metrics["mpjpe"]
                self._write("best", done, None)
            if figure:
                figure(network, done)
            self.record({f"validation/{k}": v for k, v in self.metrics.items()}, done)
        self.fabric.barrier()

    def save(self, done: int) -> None:
        """Write the checkpoint of step `done` and drop the ones that are no longer kept; the other processes wait."""
        if self.fabric.is_global_zero:
            state = {
                "weights": self.metro.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "best": self.best,
                "metrics": self.metrics,
                "curves": json.dumps(self.curves),
                "window": self.window,
            }
            self._write(_step_name(done), done, state)
            for old in sorted(self.work.glob("step-*"))[: -self.params.train.keep]:
                shutil.rmtree(old)
        self.fabric.barrier()

    def result(self, best: bool) -> Checkpoint:
        """The best checkpoint, or the last one."""
        checkpoint = load_checkpoint(self.work / ("best" if best else _step_name(self.params.train.steps)))
        self.fabric.barrier()  # the caller may move what the other processes have just read
        return checkpoint

    def _kept(self) -> str:
        """Where the run can be taken up."""
        newest = latest_checkpoint(self.work)
        return f"the last checkpoint is {newest.folder}" if newest else "no checkpoint had been written yet"

    def _write(self, name: str, done: int, state: Mapping[str, Any] | None) -> None:
        save_checkpoint(
            self.work / name,
            self.judged.state_dict(),
            params=self.params,
            step=done,
            metrics=self.metrics,
            body_digest=self.body_digest,
            levels=self.levels,
            training_state=state,
        )


def load_start_weights(metro: Metro, init: str, body_digest: str, levels: Sequence[Level]) -> None:
    """Start `metro` from `init`: `none`, a shipped checkpoint by its name, a checkpoint folder or an official file.

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
        checkpoint.check_body(body_digest)
        checkpoint.check_levels(levels)
        load_weights(metro, checkpoint.weights(), checkpoint.folder)


def _step_name(step: int) -> str:
    return f"step-{step:08d}"
