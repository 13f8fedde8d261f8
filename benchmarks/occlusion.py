"""What the shipped checkpoint loses behind objects, under a patch and with masked queries; and training with masks.

``python benchmarks/occlusion.py`` takes four minutes on one core and writes ``benchmarks/occlusion.md``. It needs the
prepared set (`dvc repro prepare@synth-test`, or ``--data``), and of the masking study a run without masks and the one
with 30 % (preset `study-masking`; `dvc repro study@masking-unmasked-1 study@masking-both-30-1`, or ``--compare A B``;
``--compare`` alone leaves them out). All see the same people behind the same objects. ``--figures FOLDER`` keeps the
pictures. Times are processor time of one thread.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from machine import machine

from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.config import OcclusionConfig
from metro.data.shards import ShardDataset
from metro.evaluation.occlusion import MASKED, choose_people, measure_occlusion, summarise, write_occlusion
from metro.evaluation.protocols import protocol_of
from metro.export.load import open_bundle

STUDY = "models/studies/masking"


def measured(names: Sequence[str], data: Path, config: OcclusionConfig, figures: Path | None) -> dict[str, Any]:
    """The summary of networks, with the processor time of all (`seconds`)."""
    dataset, body, protocol = ShardDataset(data), BodyModel(load_body("open")), protocol_of("open")
    models = {name: open_bundle(name).model for name in names}
    people = choose_people(dataset, next(iter(models.values())), body, protocol, config)
    started = time.process_time()
    networks = {name: measure_occlusion(model, people, config) for name, model in models.items()}
    spent = time.process_time() - started
    summary = summarise(networks, people, "J14", config, benchmark="synth-test")
    if figures:
        write_occlusion(networks, people, "J14", summary, figures)
    return summary | {"seconds": spent}


def rows(summary: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> list[str]:
    """A line for each condition with a cell for each entry."""
    lines = []
    for kind in kinds:
        for k, point in enumerate(entries[0][kind]):
            share = summary["hidden"][k] if kind == "objects" else point["share"]
            cells = [f"{e[kind][k]['mpjpe_mm']:.1f} ({e[kind][k]['ci95'][0]:.1f} … {e[kind][k]['ci95'][1]:.1f})"
                     for e in entries]  # fmt: skip
            what = "behind objects" if kind == "objects" else f"masked: {kind}"
            lines.append(f"| {what} | {100 * share:.0f} % | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/sets/synth-test/shards"))
    parser.add_argument("--model", default="open")
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--patch-people", type=int, default=24)
    parser.add_argument("--compare", nargs="*", default=[f"{STUDY}/unmasked-1", f"{STUDY}/both-30-1"])
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = OcclusionConfig(people=arguments.people, patch_people=arguments.patch_people, steps=8)
    summary = measured([arguments.model], arguments.data, config, arguments.figures)
    (found,) = summary["networks"]
    lines = [
        f"{machine()}; Python {platform.python_version()}, PyTorch {torch.__version__.split('+')[0]}; "
        f"`python benchmarks/occlusion.py`; the first {summary['people']} people of synth-test, the patch over "
        f"{summary['patch']['people']} of them; {summary['seconds']:.0f} s of one thread for `{arguments.model}`",
        "",
        f"| | share | `{arguments.model}`: MPJPE mm (95 %) |",
        "|---|---|---|",
        *rows(summary, [found], ("objects", *MASKED)),
        "",
        f"| patch of {100 * config.patch:.0f} % of the crop's side, 64 places: rise of the error, mm | on the joint "
        "| elsewhere |",
        "|---|---|---|",
        *[f"| {p['joint']} | {p['covered_mm']:+.0f} | {p['elsewhere_mm']:+.1f} |" for p in found["patch"]],
    ]
    if arguments.compare:
        plain = config.model_copy(update={"patch_people": 1, "steps": 2})
        compared = measured(arguments.compare, arguments.data, plain, None)
        entries = [*compared["networks"], *compared["differences"]]
        names = [f"`{name}`" for name in arguments.compare] + ["the second minus the first"]
        lines += ["", f"| | share | {' | '.join(names)} |", "|---|---|---|---|---|"]
        lines += rows(compared, entries, ("objects", *MASKED))
    print("\n".join(lines))
    notes = arguments.out.read_text().partition("\n\n\n")[2] if arguments.out.exists() else ""
    arguments.out.write_text("\n".join(lines) + "\n" + (f"\n\n{notes}" if notes else ""))


if __name__ == "__main__":
    main()
