"""`metro occlusion`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from metro.cli.options import Batch, Between, Place, ToFolder, Word
from metro.errors import MetroError
from metro.words import ProtocolName


def occlusion(
    model: str = "open",
    other: str | None = None,
    /,
    *,
    data: Place | None = None,
    benchmark: Word | None = None,
    protocol: ProtocolName | None = None,
    out: ToFolder = Path("occlusion"),
    people: Annotated[int, Parameter(validator=Between(2, 10**6))] = 100,
    patch_people: Annotated[int, Parameter(validator=Between(1, 10**6))] = 32,
    steps: Annotated[int, Parameter(validator=Between(2, 32))] = 8,
    body: Place | None = None,
    batch_size: Batch = 64,
    bootstrap: Annotated[int, Parameter(validator=Between(1, 100_000))] = 1000,
    device: Word | None = None,
) -> str:
    """Measure what a network loses when it cannot see: behind objects, under a sliding patch, with masked queries.

    Of two networks the same people behind the same objects are compared, as with and without masking in training.

    Parameters
    ----------
    model
        Checkpoint or bundle folder, `open` or `open-hand` for those that ship, or an MLflow models:/ URI.
    other
        A second network, told apart from the first by its differences.
    data
        Dataset folder written by a prepare stage; default: that of the project's benchmark.
    benchmark
        Which of the project's benchmarks is meant; default: the first one.
    protocol
        Definition of the joints, see `metro protocols`; default: the benchmark's, or `open`.
    out
        Folder for occlusion.json and the figures.
    people
        People seen: the first whose joints are known.
    patch_people
        People of them over whom the patch slides.
    steps
        Places of the patch along each axis.
    body
        Licensed body model file, for models that were trained on one; a folder with `KIND_GENDER.npz` where people
        of the dataset are posed on the body of their gender.
    batch_size
        Images per forward pass.
    bootstrap
        Resamples of the confidence intervals.
    device
        Where to run, e.g. `cuda`; none: a GPU if there is one.
    """
    from functools import partial

    from metro.body.load import load_variant
    from metro.body.model import BodyModel
    from metro.config import OcclusionConfig
    from metro.data.shards import ShardDataset
    from metro.evaluation import occlusion as occluding
    from metro.evaluation.protocols import protocol_of
    from metro.evaluation.runs import project
    from metro.export.load import body_config, body_of, open_bundle
    from metro.model.device import device_of

    if other == model:
        raise MetroError(f"{other}: is the first network too; name another one, or one alone")
    place, ask = device_of(device), project("benchmark")
    usual = ask(benchmark) if ask and data is None else None
    folder = usual.data if usual else data
    if folder is None:
        raise MetroError("no benchmark: name the people to see with --data FOLDER")
    judged = protocol_of(protocol or (usual.protocol if usual else "open"))
    config = OcclusionConfig(
        people=people, patch_people=min(people, patch_people), steps=steps, batch_size=batch_size, bootstrap=bootstrap
    )
    dataset = ShardDataset(folder)
    seen, networks = None, {}
    for name in filter(None, (model, other)):
        bundle = open_bundle(name)
        chosen = BodyModel(body_of(bundle.meta, body), variants=partial(load_variant, body_config(bundle.meta, body)))
        people_seen = occluding.choose_people(dataset, bundle.model, chosen, judged, config)
        if seen is not None and seen.images_NSS3.shape != people_seen.images_NSS3.shape:
            raise MetroError(f"{name}: sees people in other pixels than {model} does, so that objects would differ")
        seen = people_seen
        networks[name] = occluding.measure_occlusion(bundle.model, seen, config, place)
    assert seen is not None
    summary = occluding.summarise(
        networks, seen, judged.joint_set, config, benchmark=benchmark or (usual.name if usual else folder.name)
    )
    occluding.write_occlusion(networks, seen, judged.joint_set, summary, out)
    return f"{occluding.table(summary)}\nwritten to {out}"
