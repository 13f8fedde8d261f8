"""What a run tells while it goes on: its speed and memory in the log, its progress on the console."""

from __future__ import annotations

import resource
import sys
import time
from functools import cached_property

import torch
from lightning_fabric import Fabric
from tqdm import tqdm

from metro.config import TrainConfig
from metro.model.metro import Metro
from metro.training.flops import flops_per_step, matmul_flops


class Meter:
    """Throughput, share of time spent waiting for data, model FLOP utilisation and memory, since the last reading."""

    def __init__(self, fabric: Fabric, metro: Metro, config: TrainConfig) -> None:
        self.device, self.processes, self.metro, self.config = fabric.device, fabric.world_size, metro, config
        self.restart()

    @cached_property
    def utilisation(self) -> float:
        """Of one image per second."""
        kind = torch.bfloat16 if self.config.precision == "bf16-mixed" else torch.float32
        flops = flops_per_step(self.metro, self.config.freeze, cached=self.config.views is not None)
        return flops / (self.processes * matmul_flops(self.device, kind))

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


class Console:
    """A progress bar on a terminal, lines elsewhere, nothing in other processes than the first."""

    def __init__(self, steps: int, start: int, silent: bool) -> None:
        self.steps, self.silent = steps, silent
        quiet = silent or not sys.stderr.isatty()
        self.bar = tqdm(total=steps, initial=start, desc="train", unit="step", disable=quiet)

    def step_done(self) -> None:
        self.bar.update()

    def log(self, loss: float, speed: float, done: int) -> None:
        """Mean loss and images per second after `done` steps."""
        self.bar.set_postfix(loss=f"{loss:.3g}", img_s=f"{speed:.0f}")
        if self.bar.disable:
            self.say(f"loss {loss:.4g}  {speed:.0f} img/s", done)

    def say(self, text: str, done: int) -> None:
        """A line that stays."""
        if not self.silent:
            with tqdm.external_write_mode():
                print(f"step {done}/{self.steps}  {text}", flush=True)

    def close(self) -> None:
        self.bar.close()
