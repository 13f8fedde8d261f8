"""`metro predict` and `metro export`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from metro.cli.options import Batch, Between, Place, Share, ToFolder, Word
from metro.errors import MetroError

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of the files that are taken from a folder."""
_NUMBERED = re.compile(r"(.+)_(?:0|[1-9]\d*)")
"""What one of several people is called."""
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


def predict(
    images: list[Path],
    /,
    *,
    model: Word = "open",
    box: Word | None = None,
    boxes: Place | None = None,
    out: ToFolder = Path("predictions"),
    vertices: bool = False,
    scene: bool = False,
    focal: Annotated[float | None, Parameter(allow_leading_hyphen=True)] = None,
    detector: Word = "blazepose",
    hands: bool = False,
    max_people: Annotated[int | None, Parameter(validator=Between(1, 65536))] = None,
    min_score: Share | None = None,
    left_hand: bool = False,
    batch_size: Batch = 16,
    device: Word | None = None,
) -> None:
    """Predict meshes and joints; writes an overlay per image and OBJ, GLB and JSON per person.

    People are found by a detector where no boxes are given. Results are written image by image. Images that fail, or
    show nobody, are named at the end, and the exit status is then 2.

    Parameters
    ----------
    images
        Image files, or folders of them.
    model
        Checkpoint or bundle folder, `open` for the one that ships, or an MLflow models:/ URI.
    box
        Tight box x,y,width,height in pixels around the person, for a single image; several people are separated by `;`.
    boxes
        JSON file with the boxes of several images: {"NAME.jpg": [[x, y, width, height], ...], ...}, or COCO's results
        or labels. Rows may end with a score. Images of one name need their paths.
    out
        Folder for the results.
    vertices
        Include the mesh in the JSON.
    scene
        Also write NAME_scene.glb: the people of an image where they stand before its camera.
    focal
        Focal length of the camera in pixels, which places people in depth; none: the image's diagonal.
    detector
        Who finds people in images without boxes: `blazepose`, which ships; `torchvision`, a Keypoint R-CNN whose
        weights are downloaded once; `none` takes the largest square in the middle of the image instead.
    hands
        Find hands, left and right ones. Hand models ask for that by themselves; others are refused.
    max_people
        Of the people that are found in an image keep so many, the surest.
    min_score
        Leave out people that the detector is less sure of, from 0 to 1; none: what suits the detector.
    left_hand
        Hand models know right hands; this mirrors the crop and the result. For boxes: a detector tells hands apart.
    batch_size
        People per forward pass.
    device
        Where PyTorch runs, e.g. `cuda`; none: ONNX Runtime on the CPU if the model has an ONNX file.
    """
    import metro
    from metro.detect import detector as open_detector
    from metro.export.predictor import check_focal, knows_hands

    check_focal(focal)
    paths = _files(images)
    wanted = _boxes(paths, box, boxes)
    by_detector = detector != "none"
    counts = [None if rows is None and by_detector else _count(rows) for rows in wanted]
    results = _results(paths, counts, scene)
    places = {(out / file).resolve() for _, *files in results for file in files}
    if lost := [path for path in paths if path.resolve() in places]:
        raise MetroError(f"{lost[0]}: a result would be written over it; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    predictor = metro.load(model, device, detector="none")
    predictor.check_hand(left_hand)
    if hands and not knows_hands(predictor.network):
        raise MetroError(f"--hands: model {model} predicts bodies; give --model a hand model")
    if None in wanted:
        is_hand = knows_hands(predictor.network)
        predictor.detector = open_detector(detector, hands=is_hand, least=min_score, most=max_people)
    failed = []
    for path, (name, *_), rows in zip(paths, results, wanted, strict=True):
        try:
            count, animated = _predict(predictor, path, rows, out / name, vertices, scene, focal, batch_size, left_hand)
        except MetroError as err:
            failed.append(str(err))
        else:
            hint = " (took the middle square; --box x,y,w,h is better)" if rows is None and not by_detector else ""
            hint += " (an animation: its first frame)" if animated else ""
            print(f"{path}: {count} predicted → {out / name}*{hint}", flush=True)
    if failed:
        count_told = f"{len(failed)} of {len(paths)} images failed: " if len(paths) > 1 else ""
        raise MetroError(count_told + "; ".join(failed))


def export(
    *,
    model: Word = "open",
    out: ToFolder = Path("bundle"),
    onnx: bool = True,
    torch_export: bool = True,
    weights: bool = True,
) -> dict[str, Any]:
    """Write a bundle that needs no body model, with ONNX and torch.export programs checked against the network.

    Parameters
    ----------
    model
        Checkpoint or bundle folder, `open` for the one that ships, or an MLflow models:/ URI.
    out
        Folder of the bundle.
    onnx
        Also write model.onnx, which `metro predict` and `metro.load` use: they start in a second then.
    torch_export
        Also write model.pt2.
    weights
        Also write what PyTorch needs, on a GPU or to evaluate; without it the bundle predicts by model.onnx alone.
    """
    if not weights and not onnx:
        raise MetroError("a bundle without weights predicts by its ONNX file: leave --no-onnx out")
    from metro.export.bundle import ONNX, PROGRAM, write_bundle
    from metro.export.folder import read_folder
    from metro.export.load import open_bundle

    programs = [name for name, asked in ((ONNX, onnx), (PROGRAM, torch_export)) if asked]
    write_bundle(out, open_bundle(model), programs, weights)
    return {
        "bundle": str(out),
        "largest_difference_m": read_folder(out).meta["largest_difference_m"],
        "bytes": {path.name: path.stat().st_size for path in sorted(out.iterdir())},
    }


def _predict(
    predictor: Any,
    path: Path,
    rows: Any,
    stem: Path,
    vertices: bool,
    scene: bool,
    focal: float | None,
    batch_size: int,
    left_hand: bool,
) -> tuple[int, bool]:
    """Predict the people of one image, write the results, count them, and tell whether it was an animation."""
    from metro.export.predictor import knows_hands, overlay, read_photo, save_scene
    from metro.viz.overlay import save_image

    photo = read_photo(path)
    people = predictor(photo, rows, batch_size=batch_size, left_hand=left_hand)
    if not people and rows is None:
        whom = "no hands" if knows_hands(predictor.network) else "nobody"
        raise MetroError(
            f"{path}: {predictor.detector.name} finds {whom} in it; give --box x,y,width,height, or lower --min-score"
        )
    if people:
        save_image(overlay(people, photo.pixels), stem.with_name(f"{stem.name}_overlay.png"))
        if scene:
            save_scene(stem.with_name(f"{stem.name}_scene.glb"), people, focal)
    for suffix, person in zip(_suffixes(len(people)), people, strict=True):
        person.save_obj(stem.with_name(f"{stem.name}{suffix}.obj"))
        person.save_glb(stem.with_name(f"{stem.name}{suffix}.glb"))
        person.save_json(stem.with_name(f"{stem.name}{suffix}.json"), vertices=vertices, focal=focal)
    return len(people), photo.frames > 1


def _files(images: Sequence[Path]) -> list[Path]:
    """The images that were named, those of a folder in the order of their names."""
    files: list[Path] = []
    for path in images:
        if path.suffix.lower() in VIDEOS:
            raise MetroError(f"{path}: is a video; write its frames to a folder, `ffmpeg -i VIDEO FOLDER/%06d.png`")
        found = [path]
        if path.is_dir():
            found = [file for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGES and file.name[0] != "."]
            if not found:
                raise MetroError(f"{path}: holds no images ({', '.join(IMAGES)})")
        files += found
    return files


def _results(paths: Sequence[Path], people: Sequence[int | None], scene: bool) -> list[list[str]]:
    """For each image what its results are called and their files' names: its own, all numbered where two would meet.

    Names meet if they differ in case alone, which some file systems ignore. Where nobody knows yet how many people
    there are, they meet those of any image that is called as one of several people would be.
    """
    names = [path.stem for path in paths]
    files = [_written(name, count, scene) for name, count in zip(names, people, strict=True)]
    every = [file.casefold() for written in files for file in written]
    plain = [name.casefold() for name in names]
    unknown = {name for name, count in zip(plain, people, strict=True) if count is None}
    met = any((numbered := _NUMBERED.fullmatch(name)) and numbered[1] in unknown for name in plain)
    if met or len({*every}) < len(every) or len({*plain}) < len(names):
        width = len(str(len(names) - 1))
        names = [f"{number:0{width}}-{name}" for number, name in enumerate(names)]
        files = [_written(name, count, scene) for name, count in zip(names, people, strict=True)]
    return [[name, *written] for name, written in zip(names, files, strict=True)]


def _written(name: str, people: int | None, scene: bool) -> list[str]:
    """Files of an image; of one with nobody knows how many people, those of a single one."""
    people = 1 if people is None else people
    files = [f"{name}{suffix}.{kind}" for suffix in _suffixes(people) for kind in ("obj", "glb", "json")]
    return [*files, f"{name}_overlay.png", *([f"{name}_scene.glb"] if scene else [])]


def _suffixes(people: int) -> list[str]:
    return [""] if people == 1 else [f"_{k}" for k in range(people)]


def _count(rows: Any) -> int:
    """People in an image; one if its boxes are wrong, which it is told when its turn comes."""
    from metro.export.predictor import box_table

    try:
        return 1 if rows is None else len(box_table(rows, ""))
    except MetroError:
        return 1


def _boxes(paths: Sequence[Path], box: str | None, boxes: Path | None) -> list[Any]:
    """Rows of boxes for each image, or None."""
    from metro.export.boxes import read_boxes
    from metro.export.predictor import box_table

    if box is not None and boxes:
        raise MetroError("give --box or --boxes, not both")
    if box is not None:
        if len(paths) != 1:
            raise MetroError(f"--box is for a single image, here are {len(paths)}; use --boxes FILE.json")
        try:
            rows = [[float(x) for x in one.split(",")] for one in box.split(";")]
        except ValueError:
            raise MetroError(f"--box {box}: expected x,y,width,height in pixels, people separated by ;") from None
        box_table(rows, f"--box {box}")
        return [rows]
    return [None] * len(paths) if boxes is None else read_boxes(boxes, paths)
