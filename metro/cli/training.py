"""`metro checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from metro.cli.options import Between, OutFile, OutFolder, Place, check_new


def info(path: Path, /) -> dict[str, Any]:
    """Tell what a checkpoint is.

    Parameters
    ----------
    path
        Checkpoint folder, `open` or `open-hand` for those that ship, or an official METRO state dict (.bin).
    """
    from metro.model.official import describe
    from metro.model.tensors import load_tensors
    from metro.training.checkpoint import load_checkpoint

    if path.is_file():
        found = describe(load_tensors(path))
        return {
            "layout": "official",
            "joint_set": found.config.joint_set,
            "backbone": found.config.backbone,
            "mesh_levels": list(found.sizes),
            "parameters": found.parameters,
            "parameters_used": found.used,
        }
    checkpoint = load_checkpoint(path)
    weights, model = checkpoint.weights(), checkpoint.params.model
    return {
        "layout": "metro",
        "folder": str(checkpoint.folder),
        "preset": checkpoint.params.preset,
        "body": checkpoint.params.body.kind,
        "joint_set": model.joint_set,
        "backbone": model.backbone,
        "image_size": model.image_size,
        "blocks": " → ".join(f"{b.width}×{b.layers}" for b in model.blocks),
        "parameters": sum(w.numel() for name, w in weights.items() if "running_" not in name and "num_" not in name),
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "resumable": "training.pt" in checkpoint.sha256,
    }


def import_official(path: Path, out: OutFolder, body: Path, /, *, sampling: Place | None = None) -> str:
    """Turn an official METRO state dict (metro_h36m_state_dict.bin, …) into a checkpoint folder.

    Every key is accounted for; the ones that the official code never reads are dropped.

    Parameters
    ----------
    path
        Official file: body or hand, HRNet-W40, HRNet-W64 or ResNet-50.
    out
        Checkpoint folder to write.
    body
        Your neutral SMPL (hands: right MANO) file, as `metro body convert` wrote it.
    sampling
        The published mesh_downsampling.npz; left out, the levels are built from the body.
    """
    from metro.body.arrays import digest
    from metro.body.figure import FIGURES
    from metro.body.load import load_body
    from metro.config import load_params
    from metro.mesh.legacy import levels_of, require_published
    from metro.model.official import convert, describe
    from metro.model.tensors import load_tensors
    from metro.training.checkpoint import save_checkpoint

    state = load_tensors(path)
    model, weights = convert(state)
    levels, figure = describe(state).sizes, FIGURES[model.joint_set]
    params = load_params(
        {
            "preset": figure.preset,
            "body": {"kind": figure.licensed, "path": body},
            "sampling": {"sizes": levels[-2::-1], "legacy": sampling},
            "model": model.model_dump(),
        }
    )
    data = load_body(params.body)
    mesh = levels_of(params.sampling, data)
    require_published(mesh, path)
    save_checkpoint(out, weights, params=params, step=0, metrics={}, body_digest=digest(data), levels=mesh)
    return f"{out}: {model.backbone}, {model.joint_set}, mesh levels {' → '.join(map(str, levels))}"


def export_official(checkpoint: Path, out: OutFile, /, *, overwrite: bool = False) -> str:
    """Write a checkpoint as a state dict that the official code loads strictly.

    Parameters
    ----------
    checkpoint
        Checkpoint folder of a network that has an official form.
    out
        File to write (.bin).
    overwrite
        Replace `out` if it exists.
    """
    import torch

    from metro.export.bundle import from_checkpoint
    from metro.files import atomic_file
    from metro.model.official import to_official

    check_new(out, overwrite)
    state = to_official(from_checkpoint(checkpoint).model)
    with atomic_file(out) as temporary:
        torch.save(state, temporary)
    return f"{out}: {len(state)} keys"


def blend(
    start: Path,
    end: Path,
    out: OutFolder,
    /,
    *,
    share: Annotated[float, Parameter(validator=Between(0, 1))] = 0.5,
) -> str:
    """Write a checkpoint between two, the second of which was trained from the first.

    What learns on one kind of pictures forgets others. Half of the way it may know both; measure it.

    Parameters
    ----------
    start
        Checkpoint folder, or `open` or `open-hand`, that the training started from.
    end
        Checkpoint folder that it wrote.
    out
        Checkpoint folder to write.
    share
        How far from the start, from 0 to 1.
    """
    from metro.training.checkpoint import blend_weights

    return f"{blend_weights(start, end, share, out)}: {share:g} of the way from {start} to {end}"


def release(checkpoint: Path, out: OutFolder, /) -> str:
    """Write a checkpoint for others to start from: averaged weights only, in half precision.

    A MODEL_CARD.md that stands there stays, to be brought up to date by hand.

    Parameters
    ----------
    checkpoint
        Checkpoint folder that training wrote.
    out
        Checkpoint folder to write.
    """
    import torch

    from metro.training.checkpoint import copy_weights

    copy_weights(checkpoint, out, dtype=torch.float16)
    return f"{out}: {sum(p.stat().st_size for p in out.iterdir()) / 2**20:.1f} MiB"
