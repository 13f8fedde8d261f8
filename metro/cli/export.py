"""`metro predict` and `metro export`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from metro.cli.options import Batch, Between, Place, Share, ToFolder, Word, refuse
from metro.errors import MetroError
from metro.words import Tta

if TYPE_CHECKING:
    from metro.body.arrays import BodyData
    from metro.export.predictor import Prediction

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of the files that are taken from a folder."""
_NUMBERED = re.compile(r"(.+)_(?:0|[1-9]\d*)")
"""What one of several people is called."""
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


@Parameter(name="*", group=Group.create_ordered("People"))
@dataclass(frozen=True)
class PeopleOptions:
    """Who is looked for, and where."""

    box: Word | None = None
    """Tight box x,y,width,height in pixels around the person, for a single image; several people are separated by `;`.
    """
    boxes: Place | None = None
    """JSON file with the boxes of several images: {"NAME.jpg": [[x, y, width, height], ...], ...}, or COCO's results or
    labels. Rows may end with a score. Images of one name need their paths."""
    detector: Word = "blazepose"
    """Who finds people in images without boxes: `blazepose`, which ships; `torchvision`, a Keypoint R-CNN whose weights
    are downloaded once; `none` takes the largest square in the middle of the image instead."""
    hands: bool = False
    """Find hands, left and right ones. Hand models ask for that by themselves; body models are refused."""
    max_people: Annotated[int | None, Parameter(validator=Between(1, 65536))] = None
    """Of the people that are found in an image keep so many, the surest."""
    min_score: Share | None = None
    """Leave out people that the detector is less sure of, from 0 to 1; none: what suits the detector."""
    left_hand: bool = False
    """Hand models know right hands; this mirrors the crop and the result. For boxes: a detector tells hands apart."""


@Parameter(name="*", group=Group.create_ordered("Pictures"))
@dataclass(frozen=True)
class PictureOptions:
    """What else is made of pictures."""

    vertices: bool = False
    """Include the mesh in the JSON."""
    scene: bool = False
    """Also write NAME_scene.glb: the people of an image where they stand before its camera."""
    npz: bool = False
    """Also write NAME.npz: pose, shape and position of the body model nearest to each mesh, as `smplx`, Blender's
    add-on and AITViewer take them. Needs PyTorch, and the body model."""
    refine: bool = False
    """Fit the meshes to the 2D joints that the detector saw, so that they sit on the people in the image; also writes
    NAME.npz. Needs PyTorch, and the body model."""
    tta: Tta | None = None
    """Test-time augmentation: predictions of several views are averaged. `flip` sees each person in the mirror too,
    `few` turned by 10° both ways as well, in three times the time; `paper` is METRO's for hands, 95 views."""
    body: Place | None = None
    """Licensed body model file for --npz, --refine and --tta, for models that were trained on one."""


@Parameter(name="*", group=Group.create_ordered("Clips"))
@dataclass(frozen=True)
class ClipOptions:
    """How clips are gone through."""

    sequence: bool = False
    """Folders hold the frames of a clip, in the order of their names."""
    fps: Annotated[float | None, Parameter(allow_leading_hyphen=True)] = None
    """Frames a second of a clip; none: as a video tells, and 25 of a folder."""
    every: Annotated[int | None, Parameter(validator=Between(1, 30))] = None
    """Look for people in each of so many frames of a clip; in between their boxes go in straight lines. None: 5 where a
    detector looks, 1 where boxes are given."""
    smooth: bool = False
    """Smooth people over the frames of a clip (one-euro filter)."""
    overwrite: bool = False
    """Replace results of a clip that were made otherwise."""


def predict(
    images: list[Path],
    /,
    *,
    model: Word | None = None,
    out: ToFolder = Path("predictions"),
    people: PeopleOptions = PeopleOptions(),
    pictures: PictureOptions = PictureOptions(),
    clips: ClipOptions = ClipOptions(),
    focal: Annotated[float | None, Parameter(allow_leading_hyphen=True)] = None,
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
        Checkpoint or bundle folder, `open` or `open-hand` for those that ship, or an MLflow models:/ URI; none: `open`,
        and `open-hand` with --hands or --left-hand.
    out
        Folder for the results.
    focal
        Focal length of the camera in pixels, which places people in depth; none: the image's diagonal.
    batch_size
        People per forward pass.
    device
        Where PyTorch runs, e.g. `cuda`; none: ONNX Runtime on the CPU if the model has an ONNX file.
    """
    from metro.export.predictor import check_focal

    check_focal(focal)
    model = model or ("open-hand" if people.hands or people.left_hand else "open")
    named = [path for path in images if path.suffix.lower() in VIDEOS or (clips.sequence and path.is_dir())]
    if not named:
        refuse(asdict(clips), "is for clips: videos, or folders with --sequence")
        _predict_pictures(images, model, out, people, pictures, focal, batch_size, device)
        return
    if len(named) < len(images):
        raise MetroError(f"{named[0]}: is a clip; predict pictures without it")
    refuse({"box": people.box} | asdict(pictures), f"is for pictures, and {named[0]} is a clip")
    _predict_clips(named, model, out, people, clips, focal, batch_size, device)


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
        Checkpoint or bundle folder, `open` or `open-hand` for those that ship, or an MLflow models:/ URI.
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


def _predict_pictures(
    images: Sequence[Path],
    model: str,
    out: Path,
    people: PeopleOptions,
    pictures: PictureOptions,
    focal: float | None,
    batch_size: int,
    device: str | None,
) -> None:
    """Predict pictures, one after the other, and write the results of each as soon as it has them."""
    from metro.detect import detector
    from metro.export.load import body_of, network_views, open_predictor
    from metro.export.predictor import knows_hands, read_photo
    from metro.export.results import suffixes, write_people

    if pictures.npz and people.left_hand:
        raise MetroError("--npz: a left hand is the mirror image of one, which no parameters of the hand model make")
    parametric = pictures.npz or pictures.refine
    if pictures.body is not None and not parametric and pictures.tta in (None, "none"):
        raise MetroError("--body is for --npz, --refine and --tta")
    paths = _files(images)
    boxes = _boxes(paths, people.box, people.boxes)
    counts = [None if rows is None and people.detector != "none" else _count(rows) for rows in boxes]
    results = _results(paths, counts, pictures.scene, parametric)
    places = {(out / file).resolve() for _, *files in results for file in files}
    if lost := [path for path in paths if path.resolve() in places]:
        raise MetroError(f"{lost[0]}: a result would be written over it; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    predictor = open_predictor(model, device, people.hands, people.left_hand)
    is_hand = knows_hands(predictor.network)
    if pictures.refine and is_hand:
        raise MetroError(f"--refine is for bodies; model {model} predicts hands")
    if pictures.tta is not None:
        predictor.views = network_views(predictor.network, pictures.tta, pictures.body)
    if None in boxes:
        predictor.detector = detector(people.detector, hands=is_hand, least=people.min_score, most=people.max_people)
    body = body_of(predictor.network.meta, pictures.body) if parametric else None
    failed = []
    for path, (name, *_), rows in zip(paths, results, boxes, strict=True):
        stem = out / name
        try:
            photo = read_photo(path)
            found = predictor(photo, rows, batch_size=batch_size, left_hand=people.left_hand)
            if not found and rows is None:
                assert predictor.detector is not None
                raise MetroError(
                    f"{path}: {predictor.detector.name} finds {'no hands' if is_hand else 'nobody'} in it; "
                    "give --box x,y,width,height, or lower --min-score"
                )
            if body is not None:
                from metro.export.refine import with_parameters

                found = _refined(found, body, focal, device or "cpu") if pictures.refine else found
                found = with_parameters(found, body)
            endings = suffixes(len(found))
            write_people(
                found, endings, photo.pixels, stem, vertices=pictures.vertices, scene=pictures.scene, focal=focal
            )
        except MetroError as err:
            failed.append(str(err))
        else:
            assumed = any(person.assumed for person in found)
            hint = " (took the middle square; --box x,y,w,h is better)" if assumed else ""
            hint += " (an animation: its first frame)" if photo.frames > 1 else ""
            left = [
                f"{ending} {person.kept}".strip() for ending, person in zip(endings, found, strict=True) if person.kept
            ]
            hint += f" (not refined: {'; '.join(left)})" if left else ""
            print(f"{path}: {len(found)} predicted → {stem}*{hint}", flush=True)
    if failed:
        count_told = f"{len(failed)} of {len(paths)} images failed: " if len(paths) > 1 else ""
        raise MetroError(count_told + "; ".join(failed))


def _predict_clips(
    paths: Sequence[Path],
    model: str,
    out: Path,
    people: PeopleOptions,
    clips: ClipOptions,
    focal: float | None,
    batch_size: int,
    device: str | None,
) -> None:
    """Predict videos, and folders of frames."""
    from metro.video.predict import People, predict_clips
    from metro.video.run import Options

    with_files = [(path, _of_folder(path) if path.is_dir() else []) for path in paths]
    wanted = People(people.boxes, people.detector, people.hands, people.max_people, people.min_score, people.left_hand)
    options = Options(clips.every or (1 if people.boxes else 5), clips.smooth, batch_size)
    predict_clips(with_files, model, device, wanted, out, clips.fps, options, focal, clips.overwrite)


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
