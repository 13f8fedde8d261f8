"""`metro predict` and `metro export`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from metro.cli.options import Batch, Between, Place, Share, ToFolder, Word
from metro.errors import MetroError

if TYPE_CHECKING:
    from metro.body.arrays import BodyData
    from metro.export.predictor import Photo, Prediction, Predictor

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
    npz: bool = False,
    focal: Annotated[float | None, Parameter(allow_leading_hyphen=True)] = None,
    refine: bool = False,
    body: Place | None = None,
    detector: Word = "blazepose",
    hands: bool = False,
    max_people: Annotated[int | None, Parameter(validator=Between(1, 65536))] = None,
    min_score: Share | None = None,
    left_hand: bool = False,
    sequence: bool = False,
    fps: Annotated[float | None, Parameter(allow_leading_hyphen=True)] = None,
    every: Annotated[int | None, Parameter(validator=Between(1, 30))] = None,
    smooth: bool = False,
    overwrite: bool = False,
    batch_size: Batch = 16,
    device: Word | None = None,
) -> None:
    """Predict meshes and joints; writes an overlay per image and OBJ, GLB and JSON per person.

    People are found by a detector where no boxes are given. Results are written image by image. Images that fail, or
    show nobody, are named at the end, and the exit status is then 2.
    Of a video come NAME_overlay.webm, NAME.npz with meshes, joints and cameras of all people and frames, and NAME.glb,
    an animation. Called again after an interruption it goes on where it was.

    Parameters
    ----------
    images
        Image files, videos, or folders of images.
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
    npz
        Also write NAME.npz: pose, shape and position of the body model nearest to each mesh, as `smplx`, Blender's
        add-on and AITViewer take them. Needs PyTorch, and the body model.
    focal
        Focal length of the camera in pixels, which places people in depth; none: the image's diagonal.
    refine
        Fit the meshes to the 2D joints that the detector saw, so that they sit on the people in the image; also writes
        NAME.npz. Needs PyTorch, and the body model.
    body
        Licensed body model file for --npz and --refine, for models that were trained on one.
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
    sequence
        Folders hold the frames of a clip, in the order of their names.
    fps
        Frames a second of a clip; none: as a video tells, and 25 of a folder.
    every
        Look for people in each of so many frames of a clip; in between their boxes go in straight lines. None: 5 where
        a detector looks, 1 where boxes are given.
    smooth
        Smooth people over the frames of a clip (one-euro filter).
    overwrite
        Replace results of a clip that were made otherwise.
    batch_size
        People per forward pass.
    device
        Where PyTorch runs, e.g. `cuda`; none: ONNX Runtime on the CPU if the model has an ONNX file.
    """
    import metro
    from metro.detect import detector as open_detector
    from metro.export.load import body_of
    from metro.export.predictor import check_focal, knows_hands
    from metro.export.results import suffixes, write_people

    check_focal(focal)
    if clips := [path for path in images if path.suffix.lower() in VIDEOS or (sequence and path.is_dir())]:
        if len(clips) < len(images):
            raise MetroError(f"{clips[0]}: is a clip; predict pictures without it")
        for_pictures = {"box": box, "vertices": vertices, "scene": scene, "npz": npz, "refine": refine, "body": body}
        _refuse(for_pictures, f"is for pictures, and {clips[0]} is a clip")
        from metro.video.predict import People, predict_clips
        from metro.video.run import Options

        files = [_of_folder(path) if path.is_dir() else [] for path in clips]
        wanted_people = People(boxes, detector, hands, max_people, min_score, left_hand)
        options = Options(every or (1 if boxes else 5), smooth, batch_size)
        clips_and_files = [*zip(clips, files, strict=True)]
        predict_clips(clips_and_files, model, device, wanted_people, out, fps, options, focal, overwrite)
        return
    for_clips = {"sequence": sequence, "fps": fps, "every": every, "smooth": smooth, "overwrite": overwrite}
    _refuse(for_clips, "is for clips: videos, or folders with --sequence")
    if npz and left_hand:
        raise MetroError("--npz: a left hand is the mirror image of one, which no parameters of the hand model make")
    if body is not None and not (npz or refine):
        raise MetroError("--body is for --npz and --refine")
    paths = _files(images)
    wanted = _boxes(paths, box, boxes)
    by_detector = detector != "none"
    counts = [None if rows is None and by_detector else _count(rows) for rows in wanted]
    results = _results(paths, counts, scene, npz or refine)
    places = {(out / file).resolve() for _, *files in results for file in files}
    if lost := [path for path in paths if path.resolve() in places]:
        raise MetroError(f"{lost[0]}: a result would be written over it; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    predictor = metro.load(model, device, detector="none")
    predictor.check_hand(left_hand)
    if hands and not knows_hands(predictor.network):
        raise MetroError(f"--hands: model {model} predicts bodies; give --model a hand model")
    if refine and knows_hands(predictor.network):
        raise MetroError(f"--refine is for bodies; model {model} predicts hands")
    if None in wanted:
        is_hand = knows_hands(predictor.network)
        predictor.detector = open_detector(detector, hands=is_hand, least=min_score, most=max_people)
    known_body = body_of(predictor.network.meta, body) if npz or refine else None
    failed = []
    for path, (name, *_), rows in zip(paths, results, wanted, strict=True):
        stem = out / name
        try:
            people, photo = _people(predictor, path, rows, batch_size, left_hand)
            if known_body is not None:
                from metro.export.refine import with_parameters

                people = _refined(people, known_body, focal, device or "cpu") if refine else people
                people = with_parameters(people, known_body)
            endings = suffixes(len(people))
            write_people(people, endings, photo.pixels, stem, vertices=vertices, scene=scene, focal=focal)
        except MetroError as err:
            failed.append(str(err))
        else:
            hint = " (took the middle square; --box x,y,w,h is better)" if rows is None and not by_detector else ""
            hint += " (an animation: its first frame)" if photo.frames > 1 else ""
            left = [f"{endings[k]} {p.kept}".strip() for k, p in enumerate(people) if p.kept]
            hint += f" (not refined: {'; '.join(left)})" if left else ""
            print(f"{path}: {len(people)} predicted → {stem}*{hint}", flush=True)
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


def _people(
    predictor: Predictor, path: Path, rows: Any, batch_size: int, left_hand: bool
) -> tuple[list[Prediction], Photo]:
    """The people of one image; somebody, if a detector was to find them."""
    from metro.export.predictor import knows_hands, read_photo

    photo = read_photo(path)
    people = predictor(photo, rows, batch_size=batch_size, left_hand=left_hand)
    if not people and rows is None:
        assert predictor.detector is not None
        whom = "no hands" if knows_hands(predictor.network) else "nobody"
        raise MetroError(
            f"{path}: {predictor.detector.name} finds {whom} in it; give --box x,y,width,height, or lower --min-score"
        )
    return people, photo


def _refined(people: list[Prediction], body: BodyData, focal: float | None, device: str) -> list[Prediction]:
    """The people fitted to the landmarks that the detector saw."""
    import numpy as np

    from metro.detect.detection import POSE_LANDMARKS
    from metro.export.keypoints import in_j24
    from metro.export.refine import refine

    landmarks = [person.landmarks for person in people if person.landmarks is not None]
    if len(landmarks) < len(people):
        raise MetroError("--refine needs the 2D joints of a detector: leave boxes and --detector none out")
    if not people:
        return []
    return refine(people, np.stack([in_j24(points, POSE_LANDMARKS) for points in landmarks]), body, focal, None, device)


def _refuse(options: Mapping[str, Any], why: str) -> None:
    """Refuse options that were given and mean nothing here."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise MetroError(f"--{name.replace('_', '-')} {why}")


def _files(images: Sequence[Path]) -> list[Path]:
    """The images that were named, those of a folder in the order of their names."""
    files: list[Path] = []
    for path in images:
        files += _of_folder(path) if path.is_dir() else [path]
    return files


def _of_folder(path: Path) -> list[Path]:
    found = [file for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGES and file.name[0] != "."]
    if not found:
        raise MetroError(f"{path}: holds no images ({', '.join(IMAGES)})")
    return found


def _results(paths: Sequence[Path], people: Sequence[int | None], scene: bool, npz: bool) -> list[list[str]]:
    """For each image what its results are called and their files' names: its own, all numbered where two would meet.

    Names meet if they differ in case alone, which some file systems ignore. Where nobody knows yet how many people
    there are, they meet those of any image that is called as one of several people would be.
    """
    from metro.export.results import files_of

    names = [path.stem for path in paths]
    files = [files_of(name, count, scene, npz) for name, count in zip(names, people, strict=True)]
    every = [file.casefold() for written in files for file in written]
    plain = [name.casefold() for name in names]
    unknown = {name for name, count in zip(plain, people, strict=True) if count is None}
    met = any((numbered := _NUMBERED.fullmatch(name)) and numbered[1] in unknown for name in plain)
    if met or len({*every}) < len(every) or len({*plain}) < len(names):
        width = len(str(len(names) - 1))
        names = [f"{number:0{width}}-{name}" for number, name in enumerate(names)]
        files = [files_of(name, count, scene, npz) for name, count in zip(names, people, strict=True)]
    return [[name, *written] for name, written in zip(names, files, strict=True)]


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
