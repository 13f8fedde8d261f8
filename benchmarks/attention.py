"""What the joint queries of the shipped checkpoint look at: `python benchmarks/attention.py` writes ``attention.md``.

Over the 400 people of `synth-test`, which are rendered here, so that what hides them is known as well. Beside the maps
of `metro attention`: attention rollout (Abnar and Zuidema 2020), and how well people are told to be hidden.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
import yaml
from machine import machine
from scipy.stats import spearmanr

from metro.config import AttentionConfig, BodyConfig, DatasetConfig, Params
from metro.data.augment import normalise
from metro.data.loader import EvalPass
from metro.data.shards import ShardDataset, ShardWriter
from metro.evaluation.attention import Attention, Parts, measure_attention, top_parts, verdict
from metro.evaluation.hardness import Hidden
from metro.export.load import body_of, open_bundle
from metro.model.metro import Metro
from metro.options import SyntheticOptions
from metro.presets import render
from metro.synthetic.people import open_studio
from metro.synthetic.scene import annotate, photograph_people

ROLLED = 100
"""People whose attention is rolled out."""
HARDEST = 40
"""People picked as the most hidden ones."""


def photographed(config: DatasetConfig, path: Path) -> np.ndarray:
    """Write the people of a dataset to a shard; returns the share (N,) of each that something hides."""
    options, studio = config.chosen(SyntheticOptions), open_studio(BodyConfig(), config.split)
    hidden = []
    with ShardWriter(path, config.crop) as writer:
        for index, shot in enumerate(photograph_people(config, BodyConfig(), range(options.count))):
            writer.add(annotate(studio, shot, options.seed, index))
            hidden.append(shot.hidden)
    return np.array(hidden)


@torch.inference_mode()
def rolled_out(model: Metro, dataset: ShardDataset) -> tuple[np.ndarray, np.ndarray]:
    """Rollout (J, T), and the raw maps (L, J, T) that it is of, mean over people: each layer passes on half of what
    comes to it and half of what it attends to."""
    joints, rollout_JT, raw_LJT, count = model.num_joints, 0.0, 0.0, 0
    for batch in EvalPass(dataset, model.config, 1):
        output = model(normalise(batch["image"], torch.ones(1, 3)), need_attention=True)
        assert output.attention is not None
        maps = [layer[0].double().mean(0) for block in output.attention for layer in block]
        passed_TT = torch.eye(len(maps[0]), dtype=torch.float64)
        for map_TT in maps:
            passed_TT = (passed_TT + map_TT @ passed_TT) / 2
        rollout_JT = rollout_JT + passed_TT[:joints].numpy()
        raw_LJT = raw_LJT + torch.stack(maps)[:, :joints].numpy()
        count += 1
    return rollout_JT / count, raw_LJT / count


def compared(rollout_JT: np.ndarray, raw_LJT: np.ndarray, parts: Parts) -> list[str]:
    """The table of what raw maps explain of the rollout: of its weights, a joint's own token aside, and of the
    attention to each part."""
    others = ~np.eye(*rollout_JT.shape, dtype=bool)
    flattened = {
        "weights": (rollout_JT[others], raw_LJT[:, others]),
        "joints × parts": (
            parts.times_even(rollout_JT).ravel(),
            parts.times_even(raw_LJT).reshape(len(raw_LJT), -1),
        ),
    }
    lines = ["| | sum of the raw maps | weighted sum | each map, first to last |", "| --- | ---: | ---: | --- |"]
    for name, (y, raw_LX) in flattened.items():
        design = np.column_stack((raw_LX.T, np.ones(len(y))))
        left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        squares = [np.corrcoef(y, x)[0, 1] ** 2 for x in (raw_LX.sum(0), *raw_LX)]
        cells = [f"{100 * square:.0f} %" for square in (squares[0], 1 - left.var() / y.var(), *squares[1:])]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {', '.join(cells[2:])} |")
    return lines


def parts_table(measured: Attention, layer: int) -> list[str]:
    """The most attended parts of each joint, with intervals."""
    low, high = measured.by_part.interval
    lines = ["| query | first | second | third |", "| --- | --- | --- | --- |"]
    for j, name in enumerate(measured.joint_names):
        mean, names = measured.by_part.mean[layer, j], measured.parts.names
        top = top_parts(mean, low[layer, j], high[layer, j], names)
        cells = [f"{p['part']} {p['times_even']:.2f} [{p['ci95'][0]:.2f}, {p['ci95'][1]:.2f}]" for p in top]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def overall_table(measured: Attention) -> list[str]:
    """All joints together to each part, in every layer."""
    low, high = measured.overall.interval
    head = [f"block {block}, layer {layer}" for block, layer in measured.layers]
    lines = [f"| part | {' | '.join(head)} |", "| --- |" + " ---: |" * len(head)]
    for p, name in enumerate(measured.parts.names):
        cells = [
            f"{measured.overall.mean[k, p]:.2f} [{low[k, p]:.2f}, {high[k, p]:.2f}]"
            for k in range(len(measured.layers))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure and write the tables."""
    torch.set_num_threads(1)
    bundle = open_bundle("open")
    body = body_of(bundle.meta)
    config = Params.model_validate(yaml.safe_load(render("open"))).datasets["synth-test"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard-00000.h5"
        true_N = photographed(config, path)
        dataset = ShardDataset([path])
        process, rss, start = psutil.Process(), [], time.process_time()
        for samples in (64, len(dataset)):
            start = time.process_time()
            measured = measure_attention(
                bundle.model, dataset, body, bundle.levels, AttentionConfig(samples=samples, examples=1)
            )
            rss.append(process.memory_info().rss / 2**20)
        ms = 1000 * (time.process_time() - start) / len(dataset)
        hidden_of = Hidden()
        told_N = np.concatenate([hidden_of(b["image"].numpy()) for b in EvalPass(dataset, bundle.model.config, 8)])
        rollout = compared(*rolled_out(bundle.model, dataset.first(ROLLED)), measured.parts)

    hardest = np.argsort(-told_N, kind="stable")[:HARDEST]
    layers = range(len(measured.layers))
    lines = [
        "# Attention",
        "",
        f"Written by `python benchmarks/attention.py`: the shipped checkpoint over the {measured.count} people of "
        "`synth-test`.",
        f"{machine()}, load {os.getloadavg()[0]:.1f} while it ran; {ms:.0f} ms of one core an image, "
        f"{rss[0]:.0f} MiB after 64 images and {rss[1]:.0f} after {measured.count}.",
        "",
        "Intervals are normal ones of 95 % over people, for this one network: another seed gives another network. "
        "Values are multiples of an even spread over all tokens, mean over heads.",
        "",
        "## Do lower arms and lower legs score high?",
        "",
        "The paper finds so of its own network on Human3.6M.",
        "",
        *(f"- {verdict(measured, k)}" for k in layers),
        "",
        "All joint queries together:",
        "",
        *overall_table(measured),
        "",
        f"## The most attended parts of each joint, block {measured.layers[-1][0]}, layer {measured.layers[-1][1]}",
        "",
        *parts_table(measured, len(measured.layers) - 1),
        "",
        "## How much structure a layer has",
        "",
        "Of what tells the weights of a map apart a part is the same for everybody, whatever the picture shows.",
        "",
        f"| layer | tokens in effect, of {measured.tokens} | by head | the same for everybody |",
        "| --- | ---: | --- | ---: |",
        *(
            f"| block {block}, layer {layer} | {measured.effective_L[k]:.0f} | "
            + ", ".join(
                f"{value:.0f}"
                for head, value in zip(measured.heads, measured.effective.mean, strict=True)
                if head[:2] == (block, layer)
            )
            + f" | {100 * measured.same_for_all(k):.0f} % |"
            for k, (block, layer) in enumerate(measured.layers)
        ),
        "",
        "## Rollout",
        "",
        f"What raw maps explain of the variance of the rolled-out map, mean over {ROLLED} people; a joint's own token, "
        "which rollout gives an eighth of all by construction, is left aside.",
        "",
        *rollout,
        "",
        "## Are those picked as hidden hidden?",
        "",
        "Told: share of the limb joints that the landmark network does not see. True: share of the person that the "
        "renderer knows to be hidden by things and people; what the body hides itself, or the frame cuts, is not in "
        "it.",
        f"Rank correlation {spearmanr(told_N, true_N).statistic:.2f}; the {HARDEST} people told to be the most hidden "
        f"are truly hidden by {100 * true_N[hardest].mean():.0f} %, all {len(true_N)} by {100 * true_N.mean():.0f} %.",
    ]
    text = "\n".join(lines) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
