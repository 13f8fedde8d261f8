"""Training and inference of this network against a literal twin of the official one: same weights, batch and machine.

``python benchmarks/twin.py`` takes about ten minutes and writes ``benchmarks/twin-cpu.md``: processor time of one
thread, because other jobs may share the machine. With a GPU, ``python benchmarks/twin.py --device cuda`` writes
``twin-cuda.md``. The twin (``literal.py``) first has to give the same outputs, loss and gradients, in the same memory
format; what channels_last, in which this network trains, then changes is compared with float64. Then both take turns;
ratios are medians over the rounds. Last, the profiler says where a training step of this network goes.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from batch import random_batch
from literal import LiteralMetro, literal_loss
from machine import machine
from torch import Tensor, nn

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
ROUNDS = {"cpu": 3, "cuda": 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = torch.device(parser.parse_args().device)
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    body = load_body("open")
    levels = build_sampling(body.v_template, body.faces)
    gaps: list[str] = []
    moves: list[str] = []
    rows: list[str] = []
    shares: list[str] = []
    for name, config in CASES.items():
        gap, moved, raced, profiled = compare(name, config, body, levels, device)
        gaps.append(gap)
        moves += moved
        rows += raced
        shares += profiled
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"one thread of {machine()}"
    text = "\n".join(
        [
            f"Made by `python benchmarks/twin.py --device {device}` on {where}; torch {torch.__version__}, "
            f"batch {BATCH[device.type]}, dropout 0.1, Adam; the full-size body network at 224 px unless said.",
            "",
            "| network | what | twin, img/s | here, img/s | ratio [least, most] | of the matrix-product ceiling |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "Both compute the same; in the same memory format and without dropout, largest difference ÷ largest value:",
            "",
            "| network | camera | joints | 431 | 1723 | 6890 vertices | loss | gradient: mixture | first convolution |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *gaps,
            "",
            "This network trains and predicts with its backbone in channels_last, where convolutions and BatchNorm sum "
            "in another order. Largest difference ÷ largest value over all outputs:",
            "",
            "| network | BatchNorm by | here in channels_last, against the twin "
            "| twin, against float64 | here, against it |",
            "| --- | --- | --- | --- | --- |",
            *moves,
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
) -> tuple[str, list[str], list[str], list[str]]:
    """Rows of one network: agreement in one memory format and in two, speed, profile."""
    torch.manual_seed(0)
    ours = build_model(config, body, levels).to(device)
    targets = Targets(BodyModel(body), levels, config).to(device)
    twin = LiteralMetro(config, body, levels).to(device)
    twin.load(to_official(ours))
    batch = random_batch(BATCH[device.type], config.image_size, len(ours.template_T3), device)
    plain = batch["images"].contiguous()  # as the official loader gives them

    def our_loss() -> Tensor:
        output = ours(images, batch["mask"])
        return metro_loss(output, targets(batch), LossConfig())["total"]

    def twin_loss() -> Tensor:
        keep = 1 - batch["mask"][..., None].float()
        return literal_loss(twin, twin(plain, keep), batch)

    images = plain
    gaps = differences(ours, twin, our_loss, twin_loss, plain)
    if not all(gap < 1e-3 for gap in gaps):
        raise SystemExit(f"{name}: the twin computes something else, relative differences {gaps}")
    ours.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = batch["images"]  # channels_last too
    moves = rounding(name, ours, twin, images)
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
        pair = (lambda: twin(plain), lambda: ours(images))
        rows.append(race(name, "inference", *pair, flops, torch.float32, device))
        if device.type == "cuda":
            half = autocast(pair[1])
            rows.append(race(name, "inference, here in bf16", pair[0], half, flops, torch.bfloat16, device))
    return f"| {name} | {' | '.join(f'{gap:.0e}' for gap in gaps)} |", moves, rows, shares


def rounding(name: str, ours: Metro, twin: LiteralMetro, images: Tensor) -> list[str]:
    """Rows of one network in two memory formats: how far the outputs are apart, and each from float64.

    BatchNorm takes the statistics of the batch as in training, then those of the same images as in inference.
    """
    rows = []
    for training, statistics_of in ((True, "the batch, as in training"), (False, "the same images, as in inference")):
        for side in (ours, twin):
            side.eval()  # no dropout
            side.backbone.train(training)
        exact = copy.deepcopy(twin).double()
        with torch.no_grad():
            output = ours(images)
            mine, theirs = (*output[:2], *output.vertices), twin(images.contiguous())
            torch.set_default_dtype(torch.float64)  # the twin makes some tensors as it goes
            best = exact(images.contiguous().double())
            torch.set_default_dtype(torch.float32)
            if training:
                calibrate(twin.backbone, images)
                ours.backbone.load_state_dict(twin.backbone.state_dict())
        gaps = [
            max(relative(a, b) for a, b in zip(*pair, strict=True))
            for pair in ((mine, theirs), (theirs, best), (mine, best))
        ]
        rows.append(f"| {name} | {statistics_of} | {' | '.join(f'{gap:.0e}' for gap in gaps)} |")
        print(rows[-1], flush=True)
    for side in (ours, twin):
        side.train()
    return rows


def calibrate(backbone: nn.Module, images: Tensor) -> None:
    """Give BatchNorm the statistics of these images."""
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [module.momentum for module in norms]
    for module in norms:
        module.momentum = 1.0
    backbone(images.contiguous())
    for module, momentum in zip(norms, usual, strict=True):
        module.momentum = momentum


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


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
    return [relative(a, b) for a, b in pairs]


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
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    ceiling = 0.0
    for number in range(ROUNDS[device.type] + 1):
        for call, spent in zip((twin, ours), times, strict=True):
            synchronise(device)
            start = clock()
            call()
            synchronise(device)
            if number:  # the first one warms up
                spent.append(clock() - start)
        ceiling = max(ceiling, matmul_flops(device, dtype, clock))
    ratios = [a / b for a, b in zip(*times, strict=True)]
    ratio = f"**{statistics.median(ratios):.2f}** [{min(ratios):.2f}, {max(ratios):.2f}]"
    twin_speed, our_speed = (BATCH[device.type] / statistics.median(spent) for spent in times)
    share = our_speed * flops / ceiling
    row = f"| {name} | {what} | {twin_speed:.2f} | {our_speed:.2f} | {ratio} | {share:.0%} |"
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


if __name__ == "__main__":
    main()
