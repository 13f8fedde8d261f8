"""`metro data`: look at prepared datasets and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from metro.cli.options import Between, Place, ToFile, check_new
from metro.errors import MetroError


def verify(folder: Path, /, *, fits: Place | None = None) -> str:
    """Check a prepared dataset: digests, layout, labels and images.

    Parameters
    ----------
    folder
        Dataset folder with shards and manifest.json.
    fits
        Folder of its pseudo-meshes, to be checked as well.
    """
    from metro.data import shards
    from metro.data.verify import verify as problems_of

    problems = problems_of(folder, fits)
    if problems:
        if len(problems) == 1:
            raise MetroError(problems[0])
        print("\n".join(problems))
        raise MetroError(f"{folder}: {len(problems)} problems, listed above")
    manifest = shards.read_manifest(folder)
    return f"{folder}: {manifest['count']} records in {len(manifest['shards'])} shards, all intact"


def stats(folder: Path, /, *, fits: Place | None = None) -> dict[str, Any]:
    """Count labels, boxes and colours of a prepared dataset.

    Parameters
    ----------
    folder
        Dataset folder with shards and manifest.json.
    fits
        Folder of its pseudo-meshes, counted as meshes.
    """
    from metro.data import shards
    from metro.data.verify import distributions, statistics

    manifest = shards.read_manifest(folder)
    dataset = shards.ShardDataset(folder, fits)
    facts = {**statistics(dataset), "histograms": distributions(dataset)}
    bytes_ = sum(entry["bytes"] for entry in manifest["shards"])
    kept = {name: manifest.get(name) for name in ("name", "source", "licence", "expected", "left", "skipped")}
    return {**kept, "shards": len(manifest["shards"]), "bytes": bytes_, **facts}


def show(
    folder: Path,
    /,
    *,
    out: ToFile = Path("sheet.png"),
    count: Annotated[int, Parameter(validator=Between(1, 1000))] = 12,
    fits: Place | None = None,
    augmented: bool = False,
    params: Place | None = None,
    overwrite: bool = False,
) -> str:
    """Draw a contact sheet of a prepared dataset, with joints and meshes.

    Parameters
    ----------
    folder
        Dataset folder with shards and manifest.json.
    out
        Picture to write (.png or .jpg).
    count
        People shown.
    fits
        Folder of its pseudo-meshes, drawn where accepted.
    augmented
        Show what training sees instead of what is stored.
    params
        Params file whose `body`, `model` and `train` sections apply; without it the body is the one that the dataset
        was prepared for, and augmentation is METRO's.
    overwrite
        Replace `out` if it exists.
    """
    from functools import partial

    from metro.body.load import load_body, load_variant
    from metro.config import BodyConfig, ModelConfig, TrainConfig, load_params
    from metro.data import shards
    from metro.data.show import stored_sheet, training_sheet
    from metro.files import readable
    from metro.viz.overlay import save_image

    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise MetroError(f"{out}: pictures are written as .png or .jpg")
    check_new(out, overwrite)
    dataset = shards.ShardDataset(folder, fits)
    if params is not None:
        settings = load_params(params)
        body_config, model, train = settings.body, settings.model, settings.train
    else:
        with readable(folder / "manifest.json", "run the prepare stage again"):
            body_config = BodyConfig.model_validate(shards.read_manifest(folder)["params"]["body"])
        model, train = ModelConfig.model_validate({"joint_set": dataset.figure.joint_set}), TrainConfig()
        if not dataset.figure.may_flip:
            train = train.model_copy(update={"augment": train.augment.model_copy(update={"flip": 0.0})})
    body, variants = load_body(body_config), partial(load_variant, body_config)
    if augmented:
        train = train.model_copy(update={"batch_size": min(count, len(dataset)), "workers": 0})
        sheet = training_sheet(dataset, body, model, train, variants=variants)
    else:
        sheet = stored_sheet(dataset, body, count, variants=variants)
    save_image(sheet, out)
    return f"{out}: {min(count, len(dataset))} of {len(dataset)} records"


def sources() -> str:
    """List the sources that datasets can be prepared from."""
    from metro.sources import NAMES, adapter

    rows = []
    for name in NAMES:
        module = adapter(name)
        summary = (module.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        rows.append(f"{name:<16} {summary} [{module.LICENCE}]")
    return "\n".join(rows)
