"""The predictor: images and boxes in, meshes and joints out.

Frames: predictions are in camera axes (x right, y down, z forward), metres, relative to the root (pelvis or wrist).
Pixels are OpenCV's (integers are pixel centres). Files meant for 3D viewers (OBJ, GLB) are turned to y up, facing the
viewer, as those formats expect.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from metro.body.figure import FIGURES
from metro.data.crop import apply, crop_affine, cut, invert, turning, warp
from metro.detect import Detection, Detector
from metro.detect.regions import upright
from metro.errors import MetroError, naming
from metro.export.folder import CONTEXT
from metro.export.gltf import glb
from metro.export.networks import Network
from metro.export.parameters import Parameters, arrays
from metro.files import atomic_file
from metro.viz.camera import pinhole, project
from metro.viz.overlay import Image, draw_mesh, mesh_overlay, skeleton

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from metro.model.views import Views

LARGEST = 10
"""Longest side of a box over that of its image, from which on it is taken for a mistake."""
ASSUMED = "none given: the middle square was taken; a tight box around the person gives better results"
"""What results say of a box that nobody gave."""


@dataclass(frozen=True, eq=False)
class Photo:
    """An image that has been read, and what to call it."""

    pixels: Image
    """(H, W, 3) uint8 RGB."""
    source: str
    """Stands in messages and results."""
    frames: int = 1
    """Pictures in the file, of which this is the first."""


Picture = Path | str | np.ndarray | Photo
LONGEST_SIDE = 65_535
"""Pixels along a side of a picture, which is JPEG's limit too; a damaged header may claim millions."""
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Brands of the files that phones keep pictures in."""
Box = Sequence[float] | np.ndarray | Detection


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a fitted mesh stands before a pinhole camera whose axis goes through the image's middle."""

    focal: float
    """Pixels."""
    translation: np.ndarray
    """(3,) metres: adding it to the vertices puts them before the camera."""
    error_2d: float
    """Mean distance in the image from the 2D joints, as a share of the crop's side."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network says about one person or hand."""

    vertices: np.ndarray
    """(V, 3) full mesh, metres, camera axes, root-relative."""
    joints: np.ndarray
    """(J, 3) joints regressed from the mesh."""
    camera: np.ndarray
    """(3,) weak-perspective s, tx, ty: a point falls on s (xy + t) in the crop, whose sides are -1 and 1."""
    affine: np.ndarray
    """(2, 3) from image pixels to crop pixels."""
    crop_size: int
    """Side of the crop, pixels."""
    image_size: tuple[int, int]
    """Width and height of the image."""
    box: tuple[float, float, float, float]
    """x, y, width, height of the box, image pixels."""
    faces: np.ndarray
    """(F, 3) triangles, anticlockwise seen from outside."""
    joint_set: str
    """Names the joints, see `metro.body.joints`."""
    joint_names: tuple[str, ...]
    picture: int
    """Position of the image among those that were given."""
    source: str = ""
    """Path of the image, if it came from a file."""
    score: float | None = None
    """The detector's confidence, if it came with the box."""
    assumed: bool = False
    """Whether the box is the middle square of the image, for want of one."""
    placement: Placement | None = None
    """Where a fit to 2D joints has put the mesh. Joints and overlay are seen from there, and `camera` is the nearest
    weak-perspective one; none: `camera` is all that is known."""
    parameters: Parameters | None = None
    """Of a fitted mesh, or of one that `metro.export.refine.with_parameters` was asked about."""
    kept: str = ""
    """Why a refinement left the mesh as it was."""
    detector: str = ""
    """Who found the box, if nobody gave it."""
    landmarks: np.ndarray | None = None
    """(33 or 21, 3) of a detector that knows them, see `metro.detect.Detection`."""
    turn: float = 0.0
    """Degrees anticlockwise by which the crop was turned for the network. All the rest is as if it had not been."""

    @property
    def joints_2d(self) -> np.ndarray:
        """(J, 2) joints in image pixels."""
        return self.to_pixels(self.joints)

    def to_pixels(self, points_N3: ArrayLike) -> np.ndarray:
        """Image pixels (N, 2) of points in the frame of the vertices."""
        if self.placement is None:
            return self.to_image(project(points_N3, self.camera, self.crop_size))
        seen_N3 = (np.asarray(points_N3, np.float64) + self.placement.translation) @ self._intrinsics().T
        return seen_N3[:, :2] / seen_N3[:, 2:]

    def to_image(self, crop_N2: ArrayLike) -> np.ndarray:
        """Crop pixels (N, 2) to image pixels."""
        return (np.asarray(crop_N2, np.float64) - self.affine[:, 2]) / self.affine[0, 0]

    def translation(self, focal: float | None = None) -> np.ndarray:
        """(3,) metres: adding it to the vertices places them before a pinhole camera of the whole image.

        The principal point is the image's centre. `focal` is in pixels; none: the one that the mesh was fitted with, or
        the image's diagonal, a common field of view. Distance is proportional to it, so it is only as true as the focal
        length is.

        Raises
        ------
        MetroError
            The focal length is not a positive number.
        """
        check_focal(focal)
        if self.placement is not None:
            return self.placement.translation * [1, 1, (focal or self.focal) / self.focal]
        centre = self._intrinsics()[:2, 2]
        return pinhole(self.camera, self.crop_size, self.affine, focal=focal or self.focal, centre=centre)[1]

    @property
    def focal(self) -> float:
        """Focal length in pixels when none is given: the one of the fit, or the diagonal of the image."""
        return assumed_focal(self.image_size) if self.placement is None else self.placement.focal

    def _intrinsics(self) -> np.ndarray:
        width, height = self.image_size
        return np.array([[self.focal, 0, (width - 1) / 2], [0, self.focal, (height - 1) / 2], [0, 0, 1]])

    def overlay(self, image: Path | str | np.ndarray | None = None, *, joints: bool = False) -> Image:
        """The mesh (and skeleton) over the image; none: the file it came from."""
        if image is None and not self.source:
            raise MetroError("overlay: the prediction came from an array, pass that image")
        canvas = read_image(self.source if image is None else image)
        if canvas.shape[1::-1] != self.image_size:
            raise MetroError(f"overlay: image of {_size(canvas)}, the prediction is for {_times(self.image_size)}")
        if self.placement is None:
            canvas = mesh_overlay(
                canvas, self.vertices, self.faces, self.camera, affine=self.affine, size=self.crop_size
            )
        else:
            placed_V3 = self.vertices + self.placement.translation
            canvas = draw_mesh(canvas, placed_V3, self.faces, self._intrinsics(), alpha=0.9)
        return skeleton(canvas, self.joints_2d, self.joint_set) if joints else canvas

    def save_obj(self, path: Path | str) -> Path:
        """Write what `to_obj` gives."""
        return _write(path, self.to_obj().encode())

    def to_obj(self) -> str:
        """The mesh as Wavefront OBJ (metres, y up)."""
        lines = ["# metres, y up, root-relative"]
        lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in self._upright()]
        lines += [f"f {a} {b} {c}" for a, b, c in self.faces + 1]
        return "\n".join(lines) + "\n"

    def save_glb(self, path: Path | str) -> Path:
        """Write the mesh as binary glTF (metres, y up)."""
        return _write(path, glb([("person", self._upright(), self.faces)]))

    def save_json(self, path: Path | str, *, vertices: bool = False, focal: float | None = None) -> Path:
        """Write what `to_json` gives."""
        return _write(path, (self.to_json(vertices=vertices, focal=focal) + "\n").encode())

    def to_json(self, *, vertices: bool = False, focal: float | None = None) -> str:
        """The prediction as JSON; `vertices` adds the mesh, which is long, `focal` is as in `translation`."""
        record: dict[str, Any] = {
            "image": self.source,
            "image_size": list(self.image_size),
            "box_xywh": [float(x) for x in self.box],
            "box": ASSUMED if self.assumed else f"found by {self.detector}" if self.detector else "as given",
            "units": "metres, camera axes (x right, y down, z forward), relative to the root; 2D in image pixels",
            "joint_names": list(self.joint_names),
            "joints": _rounded(self.joints, 5),
            "joints_2d": _rounded(self.joints_2d, 2),
            "camera": _rounded(self.camera, 6),
            "crop": {"size": self.crop_size, "affine": _rounded(self.affine, 6), "turned_deg": self.turn},
            "perspective": {
                "focal": round(focal or self.focal, 3),
                "translation": _rounded(self.translation(focal), 5),
                "note": "for the given focal length"
                if focal or self.focal != assumed_focal(self.image_size)
                else "for an assumed focal length, the image's diagonal in pixels",
            },
        }
        if self.placement is not None:
            record["perspective"]["fitted"] = f"2D joints met to {100 * self.placement.error_2d:.1f} % of the crop"
        if self.kept:
            record["kept"] = self.kept
        if self.score is not None:
            record["score"] = self.score
        if vertices:
            record["vertices"] = _rounded(self.vertices, 5)
        return json.dumps(record)

    def save_npz(self, path: Path | str, *, focal: float | None = None) -> Path:
        """Write the body model's parameters, as `metro.export.parameters.arrays` lays them out.

        `focal` is as in `translation`.

        Raises
        ------
        MetroError
            The parameters are not known.
        """
        if self.parameters is None:
            raise MetroError(f"{path}: this mesh has no parameters yet; metro.export.refine.with_parameters finds them")
        view = {"focal": np.array(focal or self.focal), "image_size": np.array(self.image_size)}
        content: dict[str, Any] = arrays([self.parameters], [self.translation(focal)]) | view
        file = BytesIO()
        np.savez(file, **content)
        return _write(path, file.getvalue())

    def _upright(self, shift: ArrayLike = (0, 0, 0)) -> np.ndarray:
        return (self.vertices + np.asarray(shift, np.float64)) * [1, -1, -1]


def assumed_focal(image_size: tuple[int, int]) -> float:
    """Focal length in pixels that stands in for an unknown one: the diagonal of the image (width, height)."""
    return float(np.hypot(*image_size))


def _fits(box: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether a box x, y, w, h has an extent, meets the image of this width and height, and is not far larger."""
    (x, y, w, h), (width, height) = box, size
    inside = w > 0 and h > 0 and x + w > 0 and y + h > 0 and x < width and y < height
    return inside and max(w, h) <= LARGEST * max(width, height)


def check_focal(focal: float | None) -> None:
    """Refuse what is no focal length.

    Raises
    ------
    MetroError
        It is not a positive number.
    """
    if focal is not None and not 0 < focal < math.inf:
        raise MetroError(f"focal length {focal:g}: expected a positive number of pixels")


def overlay(people: Sequence[Prediction], image: Image) -> Image:
    """The meshes of people over their image, the far ones first."""
    for person in sorted(people, key=lambda p: -p.translation()[2]):
        image = person.overlay(image)
    return image


def save_scene(path: Path | str, people: Sequence[Prediction], focal: float | None = None) -> Path:
    """Write what `scene` gives."""
    return _write(path, scene(people, focal))


def scene(people: Sequence[Prediction], focal: float | None = None) -> bytes:
    """The people of one image as binary glTF, placed where they stand before its camera.

    Metres, y up; the camera is at the origin and looks along -z. `focal` is as in `Prediction.translation`.
    """
    return glb([(f"person_{k}", p._upright(p.translation(focal)), p.faces) for k, p in enumerate(people)])


class Predictor:
    """Applies a network to images.

    Parameters
    ----------
    network
        The network (`metro.load` opens one and makes a predictor of it).
    detector
        Finds people, or hands, in images that come without boxes (`metro.detect.detector`); None: the largest square in
        the middle of the image is taken.
    passes
        How often the network looks at each person: from the second time on at the box around the mesh that it gave,
        which reaches out of the image where the person does. Who does not stand upright in the image, by the
        detector's landmarks or that mesh, is turned for a look (`Figure.leans_deg`), and the result is turned back.
    views
        Test-time augmentation: what is seen in the last pass, and merged; None: the crop alone.
    """

    def __init__(
        self, network: Network, detector: Detector | None = None, passes: int = 1, views: Views | None = None
    ) -> None:
        self.network, self.detector, self.passes, self.views = network, detector, passes, views

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        boxes: Box | Sequence[Box | Sequence[Box] | None] | None = None,
        *,
        batch_size: int = 16,
        left_hand: bool = False,
    ) -> list[Prediction]:
        """Predict, one result per box, in the order of images and boxes.

        Parameters
        ----------
        images
            A path, an (H, W[, C]) array or a `Photo`, or a list of them. Files may be greyscale, have alpha (shown on
            white) or an EXIF orientation, which is applied first; boxes refer to the upright image.
        boxes
            Tight boxes x, y, width, height in pixels, and perhaps the detector's score. For one image: a box or a list
            of boxes, which may be empty. For a list of images: a list with a box, a list of boxes or None for each.
            What a detector found stands for boxes as well. None: the detector finds whoever is there, perhaps nobody;
            without a detector the largest square in the middle of the image is taken.
        batch_size
            People per forward pass; with `views` pictures, of which a person then has several.
        left_hand
            For a hand model, which knows right hands only: the crop is mirrored and the result mirrored back. A
            detector knows left hands by itself.

        Raises
        ------
        MetroError
            An image cannot be read, or a box is not of finite numbers, is empty, or lies outside its image.
        """
        single = isinstance(images, Picture)
        pictures: Sequence[Picture] = [images] if single else images  # type: ignore[assignment, list-item]
        wanted: Sequence[Any] = [boxes] if single else [None] * len(pictures) if boxes is None else boxes  # type: ignore[assignment]
        if len(wanted) != len(pictures):
            raise MetroError(f"{len(pictures)} images but boxes for {len(wanted)}; give one entry per image, or None")
        if batch_size < 1:
            raise MetroError(f"batch_size {batch_size}: expected a positive number of people")
        self.check_hand(left_hand)
        people: list[_Crop] = []
        for number, (picture, boxes_of_one) in enumerate(zip(pictures, wanted, strict=True)):
            people += self._crops(number, read_photo(picture), boxes_of_one, left_hand)
        results: list[Prediction] = []
        step = batch_size if self.views is None else max(1, batch_size // len(self.views))
        for start in range(0, len(people), step):
            some = people[start : start + step]
            for _ in range(1, self.passes):
                found = self._forward(some, None)
                some = [self._again(crop, person, True) for crop, person in zip(some, found, strict=True)]
            found = self._forward(some, self.views)
            leaning = [i for i, (crop, person) in enumerate(zip(some, found, strict=True)) if self._leans(crop, person)]
            if leaning:
                again = [self._again(some[i], found[i], self.passes > 1) for i in leaning]
                for i, person in zip(leaning, self._forward(again, self.views), strict=True):
                    found[i] = person
            results += found
        return results

    def check_hand(self, left_hand: bool) -> None:
        """Refuse the mirror image of what has none.

        Raises
        ------
        MetroError
            A left hand is asked for, and the network predicts bodies.
        """
        if left_hand and not knows_hands(self.network):
            raise MetroError("left_hand is for hand models; this one predicts bodies")

    def _crops(self, number: int, photo: Photo, boxes: Any, left_hand: bool) -> list[_Crop]:
        """What the network is to see of an image: those who were named, else those who are found, else the middle."""
        height, width = photo.pixels.shape[:2]
        name = photo.source or "image"
        if boxes is None and self.detector is not None:
            with naming(name):
                boxes = self.detector(photo.pixels)
        if boxes is not None and len(boxes) and isinstance(boxes[0], Detection):
            return [self._crop(number, photo, one.box, one.score, one.left or left_hand, found=one) for one in boxes]
        if boxes is None:  # pixel centres are whole, so the picture begins at -0.5
            middle = float(min(width, height))
            square = ((width - 1 - middle) / 2, (height - 1 - middle) / 2, middle, middle)
            return [self._crop(number, photo, square, None, left_hand, assumed=True)]
        return [self._crop(number, photo, box, score, left_hand) for *box, score in box_table(boxes, name)]

    def _crop(
        self,
        number: int,
        photo: Photo,
        box: Sequence[float],
        score: float | None,
        mirrored: bool,
        assumed: bool = False,
        found: Detection | None = None,
        turn: float | None = None,
    ) -> _Crop:
        """What the network sees of a box, whose sides are upright after the turn; none: as the landmarks tell."""
        x, y, w, h = box
        height, width = photo.pixels.shape[:2]
        name = photo.source or "image"
        if not _fits(box, (width, height)):
            raise MetroError(
                f"{name}: box {x:g},{y:g},{w:g},{h:g} is empty or outside the image of {_size(photo.pixels)}, or "
                f"more than {LARGEST} times as large; boxes are x,y,width,height in pixels"
            )
        # The middle square gets no context: it is all there is.
        centre, side = np.array([x + w / 2, y + h / 2]), max(w, h) * (1 if assumed else CONTEXT)
        size = self.network.meta["model"]["image_size"]
        if turn is None:
            turn = 0.0 if found is None or found.landmarks is None else self._turn(found.landmarks, found.names, 0.0)
        pixels, affine = _square(photo, centre, side, size, turn)
        return _Crop(pixels, affine, (x, y, w, h), score, assumed, mirrored, turn, number, photo, found)

    def _turn(self, points_K: np.ndarray, names: Sequence[str], turn: float) -> float:
        """Degrees anticlockwise by which to turn who has these points (K, 2 or more): `turn`, unless they lean then.

        Whole ones, so that rounding on another processor changes no pixel.
        """
        figure = FIGURES[self.network.meta["model"]["joint_set"]]
        if not {name for joints in figure.stands for name in joints} <= set(names):
            return turn
        low, high = (np.mean([points_K[names.index(name), :2] for name in joints], 0) for joints in figure.stands)
        needed = upright(low, high)
        lean = (needed - turn + 180) % 360 - 180
        return float(round(needed)) if abs(lean) > figure.leans_deg else turn

    def _seen(self, crop: _Crop, views: Views | None) -> np.ndarray:
        """Pixels (K, S, S, 3) of a crop in all views, the first as it is; left hands are mirrored before anything else.

        The others are cut from a larger crop of the same pixels, whose middle is that of the crop.
        """
        across = -1 if crop.mirrored else 1
        if views is None:
            return crop.pixels[None, :, ::across]
        size, photo = len(crop.pixels), crop.photo
        around = math.ceil(size * max(views.reach - 1, 0) / 2)
        (centre,) = apply(invert(crop.affine), np.full((1, 2), (size - 1) / 2))
        pixels, _ = _square(photo, centre, size / crop.affine[0, 0], size, crop.turn, around)
        seen_KSS3 = views.see(np.ascontiguousarray(pixels[:, ::across]), size)
        seen_KSS3[0] = crop.pixels[:, ::across]
        return seen_KSS3

    def _leans(self, crop: _Crop, person: Prediction) -> bool:
        """Whether who was found does not stand upright in what the network was shown."""
        return self._turn(person.joints_2d, person.joint_names, crop.turn) != crop.turn

    def _again(self, crop: _Crop, person: Prediction, own_box: bool) -> _Crop:
        """What the network is to see next, upright: the box around its own mesh, if there can be one, or the same."""
        turn = self._turn(person.joints_2d, person.joint_names, crop.turn)
        turned_22 = turning(turn)[:2, :2]
        points = person.to_image(project(person.vertices, person.camera, person.crop_size)) @ turned_22.T
        low, extent = points.min(0), np.ptp(points, 0)
        box = (*((low + extent / 2) @ turned_22 - extent / 2).tolist(), *extent.tolist())
        own_box = own_box and bool((extent >= 1).all()) and _fits(box, person.image_size)
        again = self._crop(
            crop.picture,
            crop.photo,
            box if own_box else crop.box,
            crop.score,
            crop.mirrored,
            crop.assumed and not own_box,
            crop.found,
            turn,
        )
        return replace(again, box=crop.box, assumed=crop.assumed)

    def _forward(self, crops: list[_Crop], views: Views | None) -> list[Prediction]:
        meta, faces = self.network.meta, self.network.faces_F3
        camera, joints, vertices = self.network(np.concatenate([self._seen(crop, views) for crop in crops]))
        if not all(np.isfinite(numbers).all() for numbers in (camera, joints, vertices)):
            raise MetroError(
                f"{crops[0].photo.source or 'image'}: the network's answer is not finite, its weights are damaged"
            )
        if views is not None:
            answer = (array.reshape(len(crops), len(views), *array.shape[1:]) for array in (camera, joints, vertices))
            camera, joints, vertices = views.merge(*answer)
        back_B33 = [turning(crop.turn, crop.mirrored) for crop in crops]
        return [
            Prediction(
                vertices=(v @ back_33).astype(np.float32),
                joints=(j @ back_33).astype(np.float32),
                camera=np.concatenate((k[:1], k[1:] @ back_33[:2, :2])).astype(np.float32),
                affine=crop.affine,
                crop_size=crop.pixels.shape[0],
                image_size=(crop.photo.pixels.shape[1], crop.photo.pixels.shape[0]),
                box=crop.box,
                faces=faces[:, ::-1] if crop.mirrored else faces,
                joint_set=meta["model"]["joint_set"],
                joint_names=tuple(meta["joint_names"]),
                picture=crop.picture,
                source=crop.photo.source,
                score=crop.score,
                assumed=crop.assumed,
                detector="" if crop.found is None or self.detector is None else self.detector.name,
                landmarks=None if crop.found is None else crop.found.landmarks,
                turn=crop.turn,
            )
            for crop, back_33, v, j, k in zip(crops, back_B33, vertices, joints, camera, strict=True)
        ]


def knows_hands(network: Network) -> bool:
    """Whether a network predicts hands, and no bodies."""
    return not FIGURES[network.meta["model"]["joint_set"]].may_flip


@dataclass(frozen=True)
class _Crop:
    pixels: np.ndarray
    affine: np.ndarray
    box: tuple[float, float, float, float]
    score: float | None
    assumed: bool
    mirrored: bool
    turn: float
    """Degrees by which the picture is turned anticlockwise before it is mirrored; `affine` is without it."""
    picture: int
    photo: Photo
    found: Detection | None


def _square(
    photo: Photo, centre: np.ndarray, side: float, size: int, turn: float, around: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (S, S, 3) of a square that is turned about its middle, with so many more pixels around its `size`, and the
    affine (2, 3) from the picture to the square itself, unturned."""
    whole = size + 2 * around
    reach = abs(math.cos(math.radians(turn))) + abs(math.sin(math.radians(turn)))
    more = math.ceil(whole * (reach - 1) / 2) if turn else 0  # that the corners need
    with naming(photo.source or "image"):
        pixels, affine = cut(photo.pixels, centre, side / 200, size, (whole + 2 * more) / size)
    if turn:
        middle = np.full((1, 2), (len(pixels) - 1) / 2)
        turned = np.empty((whole, whole, 3), np.uint8)
        warp(pixels, crop_affine(middle, np.array([whole]), whole, turn)[0], turned)
        pixels = turned
    return pixels, affine - [[0, 0, around + more]] * 2


def read_photo(picture: Picture) -> Photo:
    """An image with its path, if it has one. Raises as `read_image`."""
    if isinstance(picture, Photo):
        return picture
    if isinstance(picture, np.ndarray):
        return Photo(read_image(picture), "")
    with _opened(picture, str(picture)) as file:
        return Photo(_pixels(file), str(picture), _frames(file))


def read_image(picture: Path | str | np.ndarray | BytesIO, name: str = "") -> Image:
    """An image as (H, W, 3) uint8 RGB; `name` is what messages call it, without it its path.

    Files are turned upright by their EXIF orientation; alpha is laid on white; 16-bit greys are scaled to 8 bits.
    Arrays are uint8 or floats in [0, 1], grey, RGB or RGBA.

    Raises
    ------
    MetroError
        The file is missing, is no image or is truncated; the array is not an image.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    with _opened(picture, name or str(picture)) as file:
        return _pixels(file)


@contextmanager
def _opened(picture: Path | str | BytesIO, name: str) -> Iterator[ImageFile]:
    """An image file, whose pixels may be read in here: all that can be wrong with it becomes an error of one line."""
    from PIL import Image as Pil
    from PIL import UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pil.DecompressionBombWarning)  # cameras take 100 megapixels today
            file = Pil.open(picture)
        with file:
            if max(file.size) > LONGEST_SIDE:
                raise MetroError(
                    f"{name}: an image of {_times(file.size)}; more than {LONGEST_SIDE} along a side is none"
                )
            yield file
    except MetroError:
        raise
    except FileNotFoundError:
        raise MetroError(f"{name}: no such image") from None
    except IsADirectoryError:
        raise MetroError(f"{name}: is a folder; give image files") from None
    except Pil.DecompressionBombError:
        most = 2 * (Pil.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise MetroError(f"{name}: an image of more than {most} megapixels; make it smaller") from None
    except UnidentifiedImageError:
        raise MetroError(f"{name}: {_what_instead(picture)}") from None
    except Exception as err:  # decoders raise whatever they meet in damaged bytes
        raise MetroError(
            f"{name}: unreadable image ({' '.join(str(err).split())[:120]}); is the file complete?"
        ) from None


def _pixels(file: ImageFile) -> Image:
    """The upright image."""
    from PIL import ExifTags, ImageOps
    from PIL import Image as Pil

    file.load()
    image: Pil.Image = file
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # even a turn that does nothing makes a copy
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.nan_to_num(np.asarray(image, np.float64))
        top = 65535 if image.mode.startswith("I;16") or grey.max(initial=0) > 255 else 255
        return _from_array(np.clip(grey * 255 / top, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _from_array(np.asarray(image.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _frames(file: ImageFile) -> int:
    """Pictures of an animation, 1 for what is none; phones keep depth maps as further pictures of a JPEG.

    Comes after `_pixels`: a GIF is read through for it, and forgets what it showed.
    """
    return getattr(file, "n_frames", 1) if file.format in ("GIF", "PNG", "WEBP") else 1


def _what_instead(picture: Path | str | BytesIO) -> str:
    with BytesIO(picture.getvalue()) if isinstance(picture, BytesIO) else Path(picture).open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in HEIC:
        return "a HEIC image, which is not read; save it as JPEG (iPhone: Settings, Camera, Formats, Most Compatible)"
    return "not an image in a known format" if head else "not an image: the file is empty"


def _from_array(array: np.ndarray) -> Image:
    channels = 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0
    if channels not in (1, 3, 4) or not array.size:
        raise MetroError(f"image array of shape {array.shape}; expected (H, W), (H, W, 3) or (H, W, 4)")
    if array.dtype.kind == "f" and np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1:
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise MetroError(f"image array of {array.dtype}; expected uint8, or floats in [0, 1]")
    array = array.reshape(*array.shape[:2], channels)
    if channels == 4:
        alpha = array[..., 3:] / 255.0
        array = np.rint(array[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def box_table(boxes: Any, where: str) -> list[tuple[float, float, float, float, float | None]]:
    """Boxes as rows x, y, width, height, score; the score may be missing. One box alone is a table of one row.

    Raises
    ------
    MetroError
        They are not numbers, not finite or not four or five; `where` says whose they are.
    """
    try:
        table = np.asarray(boxes, np.float64)
    except (TypeError, ValueError, OverflowError):
        table = np.empty(())
    if table.ndim and not len(table):
        return []
    table = np.atleast_2d(table)
    if table.ndim != 2 or table.shape[1] not in (4, 5) or not np.isfinite(table).all():
        raise MetroError(
            f"{where}: a box is four finite numbers, x,y,width,height in pixels, and perhaps its score; "
            f"got {boxes!r:.100}"
        )
    return [(*row[:4], row[4] if len(row) > 4 else None) for row in table.tolist()]


def _write(path: Path | str, content: bytes) -> Path:
    path = Path(path)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return path


def _rounded(array: np.ndarray, digits: int) -> list[Any]:
    return np.round(array.astype(np.float64), digits).tolist()


def _size(image: np.ndarray) -> str:
    return _times((image.shape[1], image.shape[0]))


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]} pixels"
