"""`metro attention`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from metro.cli.options import Between, Place, ToFolder, Word, refuse
from metro.errors import MetroError

_SAMPLES, _EXAMPLES = 64, 4


def attention(
    data: Path,
    /,
    *,
    model: Word = "open",
    out: ToFolder = Path("attention"),
    joint: Word | None = None,
    block: Annotated[int | None, Parameter(validator=Between(1, 100))] = None,
    layer: Annotated[int | None, Parameter(validator=Between(1, 1000))] = None,
    box: Word | None = None,
    detector: Word | None = None,
    samples: Annotated[int | None, Parameter(validator=Between(1, 10**9))] = None,
    examples: Annotated[int | None, Parameter(validator=Between(1, 100))] = None,
    body: Place | None = None,
    device: Word | None = None,
) -> str | dict[str, Any]:
    """Draw what the joint queries attend to: in a photograph, or over a prepared dataset.

    In a photograph people are found as by `metro predict`. Of each come NAME_attention.png, with lines from the joint
    to what its query attends to and the mesh coloured by it, and NAME_attention.json. Of a dataset come means with
    intervals over people, for all heads, layers and blocks, and pictures of hidden, folded and plain people.
    What such maps do not prove is told in the README.

    Parameters
    ----------
    data
        An image file, or a dataset folder written by a prepare stage.
    model
        Checkpoint or bundle folder, `open` or `open-hand` for those that ship, or an MLflow models:/ URI.
    out
        Folder for the results.
    joint
        Of a photograph: joint whose query is drawn, e.g. `right_wrist`; none: some of them.
    block
        Of a photograph: encoder block, counted from 1; none: the last one, as in the paper.
    layer
        Of a photograph: layer of the block; none: its last one.
    box
        Of a photograph: tight box x,y,width,height in pixels around the person; several are separated by `;`.
    detector
        Of a photograph: who finds people, `blazepose` (the default), `torchvision`, or `none` for the middle square.
    samples
        Of a dataset: images averaged, by default 64. As many as there are, if it has fewer.
    examples
        Of a dataset: images drawn, by default 4.
    body
        Licensed body model file, for models that were trained on one.
    device
        Where to run, e.g. `cuda`; none: a GPU if there is one.
    """
    if data.is_dir():
        photo_only = {"joint": joint, "block": block, "layer": layer, "box": box, "detector": detector}
        refuse(photo_only, f"is for photographs, and {data} is a folder")
        return _over_dataset(data, model, out, samples or _SAMPLES, examples or _EXAMPLES, body, device)
    refuse({"samples": samples, "examples": examples}, "is for dataset folders, and no photograph has it")
    return _in_photo(data, model, out, joint, block, layer, box, detector, body, device)


def _over_dataset(
    data: Path, model: str, out: Path, samples: int, examples: int, body: Path | None, device: str | None
) -> dict[str, Any]:
    from metro.config import AttentionConfig
    from metro.data.shards import ShardDataset
    from metro.evaluation.attention import measure_attention, write_attention
    from metro.export.load import body_of, open_bundle
    from metro.model.device import device_of

    place, dataset, bundle = device_of(device), ShardDataset(data), open_bundle(model)
    own_body = body_of(bundle.meta, body)
    config = AttentionConfig(samples=samples, examples=examples)
    measured = measure_attention(bundle.model, dataset, own_body, bundle.levels, config, place)
    summary = write_attention(measured, own_body, bundle.levels, out)
    return {"written": str(out), **{k: summary[k] for k in ("images", "tokens", "layers")}}


def _in_photo(
    path: Path,
    model: str,
    out: Path,
    joint: str | None,
    block: int | None,
    layer: int | None,
    box: str | None,
    finder: str | None,
    body: Path | None,
    device: str | None,
) -> str:
    from metro.detect import detector
    from metro.evaluation import attention_photo as watching
    from metro.evaluation.attention import heads_of
    from metro.export.load import body_of, open_bundle, predictor_of
    from metro.export.predictor import box_table, knows_hands, read_photo
    from metro.export.results import suffixes

    photo, boxes = read_photo(path), None
    if box is not None:
        refuse({"detector": finder}, "is for photographs without --box")
        try:
            boxes = [[float(number) for number in row.split(",")] for row in box.split(";")]
        except ValueError:
            raise MetroError(f"--box {box}: expected x,y,width,height in pixels, people separated by ;") from None
        box_table(boxes, f"--box {box}")
    bundle = open_bundle(model)
    network = watching.WatchedNetwork(bundle, device)
    own_body = body_of(bundle.meta, body)
    position = None if joint is None else watching.joint_called(joint, bundle.joint_names)
    where = watching.layer_called(heads_of(bundle.model), block, layer)
    predictor = predictor_of(network)
    if boxes is None:
        predictor.detector = detector(finder or "blazepose", hands=knows_hands(network))
    people = watching.watch(predictor, photo, boxes)
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for ending, one in zip(suffixes(len(people)), people, strict=True):
        stem = out / f"{path.stem}{ending}"
        record = watching.write_watched(one, photo, network, bundle, own_body, position, where, stem)
        lines.append(f"{stem}_attention.png: {watching.told(record)}")
    return "\n".join(lines)
