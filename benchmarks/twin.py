"""Training and inference of this network against a literal twin of the official one: same weights, batch and machine.

``python benchmarks/twin.py`` takes about six minutes on two cores and writes ``benchmarks/twin-cpu.md``; with a GPU,
``python benchmarks/twin.py --device cuda`` writes ``twin-cuda.md``. The twin (``literal.py``) first has to give the
same outputs, loss and gradients. Then both take turns; ratios are medians over the rounds. Last, the profiler says
where a training step of this network goes.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from batch import random_batch
from literal import LiteralMetro, literal_loss
from torch import Tensor

from metro.body.arrays import BodyData
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import BlockConfig, LossConfig, ModelConfig, TrainConfig
from metro.mesh.sampling import Level, build_sampling
from metro.model.losses import Targets, metro_loss
from metro.model.metro import Metro, build_model
from metro.model.official import to_official
from metro.training.engine import build_optimizer
from metro.training.flops import flops_per_image, matmul_flops, synchronise

NARROW = tuple(BlockConfig(width=w, out=o, layers=1, heads=2, ffn=2 * w) for w, o in ((64, 64), (64, 32), (32, 3)))
CASES = {
    "ResNet-18, 112 px, narrow blocks": ModelConfig(backbone="resnet18", image_size=112, blocks=NARROW),
    "ResNet-50": ModelConfig(backbone="resnet50"),
    "HRNet-W64": ModelConfig(backbone="hrnet_w64"),
}
KINDS = {  # of operations, by words in their names; the first that fits
    "convolutions": ("conv",),
    "attention": ("scaled_dot_product", "attention"),
    "matrix products": ("mm", "linear"),
    "normalisation": ("batch_norm", "layer_norm"),
    "optimizer": ("adam",),
    "the rest": ("",),
}
BATCH = {"cpu": 4, "cuda": 32}
ROUNDS = {"cpu": 2, "cuda": 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = torch.device(parser.parse_args().device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    body = load_body("open")
    levels = build_sampling(body.v_template, body.faces)
    gaps: list[str] = []
    rows: list[str] = []
    shares: list[str] = []
    for name, config in CASES.items():
        gap, raced, profiled = compare(name, config, body, levels, device)
        gaps.append(gap)
        rows += raced
        shares += profiled
    machine = (
        torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} cores, {cpu_name()}"
    )
    text = "\n".join(
        [
            f"Made by `python benchmarks/twin.py --device {device}` on {machine}; torch {torch.__version__}, "
            f"batch {BATCH[device.type]}, dropout 0.1, Adam; the full-size body network at 224 px unless said.",
            "",
            "| network | what | twin, img/s | here, img/s | ratio | of the matrix-product ceiling |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "Both compute the same; without dropout, largest difference ÷ largest value:",
            "",
            "| network | camera | joints | 431 | 1723 | 6890 vertices | loss | gradient: mixture | first convolution |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *gaps,
            "",
            "Where a training step goes (attention that is not one kernel counts as matrix products and the rest):",
            "",
            f"| network | {' | '.join(KINDS)} |",
            f"| --- |{' --- |' * len(KINDS)}",
            *shares,
        ]
    )
    (Path(__file__).parent / f"twin-{device}.md").write_text(text + "\n")
    print(text)


def compare(
    name: str, config: ModelConfig, body: BodyData, levels: list[Level], device: torch.device
) -> tuple[str, list[str], list[str]]:
    """Rows of one network: agreement, speed, profile."""
    torch.manual_seed(0)
    ours = build_model(config, body, levels).to(device)
    targets = Targets(BodyModel(body), levels, config).to(device)
    twin = LiteralMetro(config, body, levels).to(device)
    twin.load(to_official(ours))
    batch = random_batch(BATCH[device.type], config.image_size, len(ours.template_T3), device)

    def our_loss() -> Tensor:
        output = ours(batch["images"], batch["mask"])
        return metro_loss(output, targets(batch), LossConfig())["total"]

    def twin_loss() -> Tensor:
        keep = 1 - batch["mask"][..., None].float()
        return literal_loss(twin, twin(batch["images"], keep), batch)

    gaps = differences(ours, twin, our_loss, twin_loss, batch["images"])
    if not all(gap < 1e-3 for gap in gaps):
        raise SystemExit(f"{name}: the twin computes something else, relative differences {gaps}")
    ours.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train = TrainConfig(optimizer="adam", clip=None)
    our_step = stepper(our_loss, build_optimizer(ours, train))
    twin_step = stepper(twin_loss, torch.optim.Adam(twin.parameters(), lr=train.lr))
    flops = flops_per_image(ours)
    rows = [race(name, "training", twin_step, our_step, 3 * flops, torch.float32, device)]
    shares = [profile(name, our_step, device)]
    if device.type == "cuda":
        half = autocast(our_step)
        rows.append(race(name, "training, here in bf16", twin_step, half, 3 * flops, torch.bfloat16, device))
        shares.append(profile(f"{name}, bf16", half, device))
    del our_step, twin_step
    gc.collect()
    ours.eval(), twin.eval()
    for p in (*ours.parameters(), *twin.parameters()):
        p.grad = None
    with torch.no_grad():
        pair = (lambda: twin(batch["images"]), lambda: ours(batch["images"]))
        rows.append(race(name, "inference", *pair, flops, torch.float32, device))
        if device.type == "cuda":
            half = autocast(pair[1])
            rows.append(race(name, "inference, here in bf16", pair[0], half, flops, torch.bfloat16, device))
    return f"| {name} | {' | '.join(f'{gap:.0e}' for gap in gaps)} |", rows, shares


def differences(
    ours: Metro, twin: LiteralMetro, our_loss: Callable[[], Tensor], twin_loss: Callable[[], Tensor], images: Tensor
) -> list[float]:
    """Outputs, loss and two gradients of the two networks without dropout: largest difference ÷ largest value."""
    for side in (ours, twin):
        side.eval()  # no dropout
        side.backbone.train()  # with statistics of its beginning an untrained HRNet leaves the range of float32
    with torch.no_grad():
        mine, theirs = ours(images), twin(images)
    pairs = [*zip((*mine[:2], *mine.vertices), theirs, strict=True)]
    losses = our_loss(), twin_loss()
    for loss in losses:
        loss.backward()
    pairs.append(tuple(loss.detach() for loss in losses))
    pairs.append((ours.mix.weight.grad, twin.conv_learn_tokens.weight.grad[..., 0]))
    pairs.append(tuple(next(side.backbone.parameters()).grad for side in (ours, twin)))
    for side in (ours, twin):
        side.zero_grad()
        side.train()
    return [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]


def stepper(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def autocast(call: Callable[[], object]) -> Callable[[], object]:
    def inside() -> object:
        with torch.autocast("cuda", torch.bfloat16):
            return call()

    return inside


def race(
    name: str, what: str, twin: Callable, ours: Callable, flops: float, dtype: torch.dtype, device: torch.device
) -> str:
    """One row: both take turns."""
    times: list[list[float]] = [[], []]
    ceiling = 0.0
    for number in range(ROUNDS[device.type] + 1):
        for call, spent in zip((twin, ours), times, strict=True):
            synchronise(device)
            start = time.perf_counter()
            call()
            synchronise(device)
            if number:  # the first one warms up
                spent.append(time.perf_counter() - start)
        ceiling = max(ceiling, matmul_flops(device, dtype))
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    twin_speed, our_speed = (BATCH[device.type] / statistics.median(spent) for spent in times)
    share = our_speed * flops / ceiling
    row = f"| {name} | {what} | {twin_speed:.2f} | {our_speed:.2f} | **{ratio:.2f}** | {share:.0%} |"
    print(row, flush=True)
    return row


def profile(name: str, step: Callable[[], None], device: torch.device) -> str:
    """One row: shares of the time that operations of each kind take themselves, on the device."""
    with torch.profiler.profile() as profiler:  # of the CPU, and of a GPU where there is one
        step()
        synchronise(device)
    spent = dict.fromkeys(KINDS, 0.0)
    for event in profiler.key_averages():
        if event.key.startswith("aten::"):
            kind = next(kind for kind, words in KINDS.items() if any(word in event.key for word in words))
            spent[kind] += event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
    row = f"| {name} | {' | '.join(f'{each / sum(spent.values()):.0%}' for each in spent.values())} |"
    print(row, flush=True)
    return row


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
