"""What rigid upsampling does to meshes and errors, against interpolation of the same coarse meshes.

``python benchmarks/surface.py`` takes two minutes on one core and writes ``benchmarks/surface.md``. It needs the
prepared set (`dvc repro prepare@synth-test`, or ``--data``). Both upsamplings get what the shipped network says of the
431 coarse vertices; intervals are of the paired difference, over people. A stretch is the length of an edge of the full
mesh in units of the true one, a fold the angle between neighbouring triangles. Times are those of one thread.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import torch
from machine import machine

from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.data.augment import normalise
from metro.data.loader import EvalPass
from metro.data.shards import ShardDataset
from metro.evaluation.measure import ground_truth, score
from metro.evaluation.protocols import protocol_of
from metro.export.load import open_bundle
from metro.mesh.sampling import compose_indices
from metro.mesh.topology import half_edges
from metro.model.template import template_mesh
from metro.model.upsampling import FixedUpsampling, RigidUpsampling

METRICS = {"mpjpe": "MPJPE", "pa_mpjpe": "PA-MPJPE", "mpve": "MPVE", "pa_mpve": "PA-MPVE"}


def folds(mesh_BV3: torch.Tensor, faces_F3: np.ndarray, pairs_E2: np.ndarray) -> np.ndarray:
    """Degrees (B, E) between the normals of faces that share an edge."""
    corner = mesh_BV3[:, torch.from_numpy(faces_F3.astype(np.int64))]
    normal = torch.linalg.cross(corner[:, :, 1] - corner[:, :, 0], corner[:, :, 2] - corner[:, :, 0])
    normal = torch.nn.functional.normalize(normal, dim=-1)
    first, second = (normal[:, pairs_E2[:, side]] for side in (0, 1))
    return torch.rad2deg((first * second).sum(-1).clamp(-1, 1).acos()).numpy()


def milliseconds(run: torch.nn.Module, coarse_BV3: torch.Tensor, repeats: int = 20) -> float:
    """Median time of a forward pass for a mesh of the batch."""
    spent = []
    for _ in range(repeats):
        started = time.perf_counter()
        run(coarse_BV3)
        spent.append(time.perf_counter() - started)
    return 1000 * float(np.median(spent)) / len(coarse_BV3)


def finer(way: torch.nn.Module, coarse_BV3: torch.Tensor) -> torch.Tensor:
    """The full meshes."""
    return way(coarse_BV3)[-1] if isinstance(way, RigidUpsampling) else way(coarse_BV3)


@torch.inference_mode()
def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/sets/synth-test/shards"))
    parser.add_argument("--people", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bundle, data, protocol = open_bundle("open"), load_body("open"), protocol_of("open")
    body, dataset = BodyModel(data), ShardDataset(arguments.data).first(arguments.people)
    template_V3, _ = template_mesh(bundle.model.config, data)
    ways = {
        "fixed": torch.nn.Sequential(*(FixedUpsampling(level.up) for level in reversed(bundle.levels))),
        "rigid": RigidUpsampling(template_V3.numpy(), data.faces, compose_indices(bundle.levels)),
    }
    both_ways = np.sort(half_edges(data.faces), axis=1)
    in_pairs = np.lexsort(both_ways.T).reshape(-1, 2)  # the surface is closed: an edge is a side of two faces
    sides, pairs = both_ways[in_pairs[:, 0]], in_pairs % len(data.faces)
    errors: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    stretched: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    folded: dict[str, list[np.ndarray]] = {name: [] for name in (*ways, "true")}
    for batch in EvalPass(dataset, bundle.model.config, 20):
        truth = ground_truth(batch, body, protocol)
        coarse = bundle.model(normalise(batch["image"], batch["colour"])).vertices[0]
        true = body.of_people(batch["pose_aa"], batch["betas"], batch.get("gender")).vertices
        length = (true[:, sides[:, 0]] - true[:, sides[:, 1]]).norm(dim=-1)
        folded["true"].append(folds(true, data.faces, pairs).mean(1))
        for name, way in ways.items():
            mesh = finer(way, coarse)
            scores = score(mesh, truth, body, protocol, [*METRICS])
            errors[name].append(np.stack([1000 * scores[key].numpy() for key in METRICS], 1))
            stretched[name].append(((mesh[:, sides[:, 0]] - mesh[:, sides[:, 1]]).norm(dim=-1) / length).numpy())
            folded[name].append(folds(mesh, data.faces, pairs).mean(1))
    table = {name: np.concatenate(parts) for name, parts in errors.items()}
    draws = np.random.default_rng(0).integers(len(dataset), size=(2000, len(dataset)))
    lines = [
        f"{machine()}; Python {platform.python_version()}, PyTorch {torch.__version__.split('+')[0]}; "
        f"`python benchmarks/surface.py`; the first {len(dataset)} people of synth-test, model `open`",
        "",
        "| | fixed | rigid | rigid − fixed, 95 % |",
        "|---|---|---|---|",
    ]
    for k, label in enumerate(METRICS.values()):
        change = table["rigid"][:, k] - table["fixed"][:, k]
        low, high = np.percentile(change[draws].mean(1), [2.5, 97.5])
        means = " | ".join(f"{table[name][:, k].mean():.1f}" for name in ways)
        lines.append(f"| {label}, mm | {means} | {change.mean():+.1f} ({low:+.1f} … {high:+.1f}) |")
    quantiles = (0.05, 0.5, 0.95)
    cells = (" … ".join(f"{q:.2f}" for q in np.quantile(np.concatenate(stretched[name]), quantiles)) for name in ways)
    lines.append(f"| stretch, 5 % … half … 95 % | {' | '.join(cells)} | |")
    mean = {name: float(np.concatenate(parts).mean()) for name, parts in folded.items()}
    lines.append(
        f"| mean fold, degrees (true meshes: {mean['true']:.1f}) | {mean['fixed']:.1f} | {mean['rigid']:.1f} | |"
    )
    for count in (1, 32):
        one = coarse[:1].expand(count, -1, -1).contiguous()
        cells = (f"{milliseconds(way, one):.1f}" for way in ways.values())
        lines.append(f"| ms a mesh, {count} at once | {' | '.join(cells)} | |")
    print("\n".join(lines))
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
