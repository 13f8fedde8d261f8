"""Speed of the network on one core, and what its shortcuts save over the literal way, in the same run.

``python benchmarks/model.py`` takes about a minute and writes ``benchmarks/model.md``. Times are processor time of
one thread, because other jobs may share the machine; each is the smallest of several rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from batch import random_batch
from machine import machine

from metro.body.arrays import BodyData
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import BlockConfig, LossConfig, ModelConfig
from metro.mesh.sampling import Level, build_sampling
from metro.model.losses import Targets, metro_loss
from metro.model.metro import LearnedUpsampling, Metro, build_model

BATCH, ROUNDS = 16, 3
BACKBONES = (
    ("resnet18", 96),
    ("timm/resnet10t", 96),
    ("timm/resnet10t", 128),
    ("timm/regnetx_002", 96),
    ("timm/regnetx_002", 128),
)
SMALL = tuple(BlockConfig(width=w, out=o, layers=1, heads=2, ffn=2 * w) for w, o in ((128, 64), (64, 32), (32, 3)))
OFFICIAL_WIDTHS = (2051, 1024, 512)  # token, hidden and output of the first block


def main() -> None:
    torch.set_num_threads(1)
    body = load_body("open")
    levels = build_sampling(body.v_template, body.faces)
    lines = [
        f"Made by `python benchmarks/model.py` on {machine()}; torch {torch.__version__}, one thread, batch {BATCH}.",
        "",
        "Training step (forward, loss on the coarse mesh and joints, backward, AdamW) and inference of small networks:",
        "",
        "| backbone | pixels | training img/s | backbone's share | inference img/s, full mesh | parameters, M |",
        "| --- | --- | --- | --- | --- | --- |",
        *(network_row(name, size, body, levels) for name, size in BACKBONES),
        "",
        "Shortcuts, forward and backward, milliseconds:",
        "",
        "| what | literal | here | ratio |",
        "| --- | --- | --- | --- |",
        *shortcut_rows(body, levels),
    ]
    text = "\n".join(lines) + "\n"
    (Path(__file__).parent / "model.md").write_text(text)
    print(text)


def network_row(name: str, size: int, body: BodyData, levels: list[Level]) -> str:
    config = ModelConfig(
        backbone=name,
        image_size=size,
        blocks=SMALL,
        dropout=0,
        attention_dropout=0,
        upsampling="fixed",
        init="template",
    )
    model, targets = build_model(config, body, levels), Targets(BodyModel(body), levels, config)
    model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters())
    batch = random_batch(BATCH, size, len(model.template_T3))
    images = batch["images"]
    loss = LossConfig(level_weights=(1, 0, 0))

    def step() -> None:
        output = model(images, batch["mask"], full=False)
        metro_loss(output, targets(batch), loss)["total"].backward()
        optimizer.step()
        optimizer.zero_grad()

    training = seconds(step)
    share = seconds(lambda: model.backbone(images).sum().backward()) / training
    model.eval()
    with torch.no_grad():
        inference = seconds(lambda: model(images))
    count = sum(p.numel() for p in model.parameters()) / 1e6
    return f"| {name} | {size} | {BATCH / training:.0f} | {share:.0%} | {BATCH / inference:.0f} | {count:.1f} |"


def shortcut_rows(body: BodyData, levels: list[Level]) -> list[str]:
    block = BlockConfig(width=OFFICIAL_WIDTHS[1], out=3, layers=1)
    config = ModelConfig(backbone="resnet50", blocks=(block,), upsampling="fixed")
    model = build_model(config, body, levels)
    assert model.mix is not None
    mix, embed, skip = model.mix, model.blocks[0].embed, torch.nn.Linear(OFFICIAL_WIDTHS[0], OFFICIAL_WIDTHS[2])
    features_BPC = torch.randn(2, mix.in_features, OFFICIAL_WIDTHS[0] - 3, requires_grad=True)

    def literal() -> torch.Tensor:
        image_BTC = mix(features_BPC.mT).mT
        tokens = torch.cat([model.template_T3.expand(2, -1, -1), image_BTC], 2)
        return embed(tokens).sum() + skip(tokens).sum()

    def projected() -> torch.Tensor:
        return sum(Metro._project_queries(model, layer, features_BPC, None).sum() for layer in (embed, skip))  # type: ignore

    coarse = torch.randn(BATCH, levels[0].up.shape[1], 3, requires_grad=True)
    learned, fixed = LearnedUpsampling(levels[0].up), model.upsampling[1]
    gradient = torch.randn(BATCH, levels[0].up.shape[0], 3)
    qkv = torch.randn(3, BATCH, 2, len(model.template_T3), 32, requires_grad=True)

    def explicit() -> torch.Tensor:
        q, k, v = qkv
        return ((q @ k.mT * 32**-0.5).softmax(-1) @ v).sum()

    pairs: dict[str, tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]] = {
        "query tokens of the official first block, 2 images": (literal, projected),
        f"1723 → 6890 vertices, {BATCH} images: the official dense layer, fixed": (
            lambda: (learned(coarse) * gradient).sum(),
            lambda: (fixed(coarse) * gradient).sum(),
        ),
        f"attention, 445 tokens, 2 heads of 32, {BATCH} images": (
            explicit,
            lambda: F.scaled_dot_product_attention(*qkv).sum(),
        ),
    }
    rows = []
    for name, (slow, fast) in pairs.items():
        a, b = (1e3 * seconds(lambda f=f: f().backward()) for f in (slow, fast))  # type: ignore[misc]
        rows.append(f"| {name} | {a:.1f} | {b:.1f} | {a / b:.1f} |")
    return rows


def seconds(call: Callable[[], object]) -> float:
    """Smallest processor time of a call."""
    call()
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    main()
