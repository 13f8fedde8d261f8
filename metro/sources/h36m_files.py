"""The files of Human3.6M (`metro.sources.h36m`): what metadata.xml tells, where things are, and what they hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from metro.body.joints import index_map
from metro.body.pickles import read_pickle
from metro.errors import MetroError
from metro.files import readable
from metro.sources.bodies import rotations
from metro.sources.boxes import enlarged
from metro.sources.formats import mat, video
from metro.sources.formats.cdf import read_pose
from metro.sources.formats.stream import entries
from metro.sources.pictures import size_of
from metro.sources.source import Row
from metro.synthetic import exact
from metro.synthetic.rotations import product, rotation_vector

CAMERAS = ("54138969", "55011271", "58860488", "60457274")
"""Names of the cameras, in the order of `w0`."""
FAULTY = ("Greeting", "SittingDown 1", "Waiting 1")
"""Actions of S9 whose joints are shifted in the world."""
FITS = ("Human36M_subject{s}_smpl_param.json", "annotations/Human36M_subject{s}_smpl_param.json")
MOSH = ("S{s}/{mosh}", "h36m_mosh/S{s}/images/{mosh}", "neutrMosh/neutrSMPL_H3.6/S{s}/{mosh}")
MASKS = ("S{s}/MySegmentsMat/ground_truth_bb/{stem}.mat", "s{s}/MySegmentsMat/ground_truth_bb/{stem}.mat")

_POSES = ("S{s}/MyPoseFeatures/{kind}", "S{s}/Poses_{kind}", "s{s}/MyPoseFeatures/{kind}", "s{s}/{kind}")
_REMEDY = "get it again from the site"
_JOINTS = index_map("H36M32", "H36M_MOCAP17")
_FIT_SIZES = {"pose": 72, "shape": 10, "trans": 3}
_FARTHEST = 20.0  # of a translation in metres, and nearest of one in millimetres


class Layout(NamedTuple):
    """Where the pictures of a sequence are."""

    words: str
    pattern: str
    first: int | None
    """Number of the first frame in names; none: a video."""


LAYOUTS = (
    Layout("videos", "S{s}/Videos/{stem}.mp4", None),
    Layout("videos", "s{s}/Videos/{stem}.mp4", None),
    Layout("frames by subject and sequence", "S{s}/{flat}/{flat}_{number:06d}.jpg", 1),
    Layout("frames by subject and sequence", "images/S{s}/{flat}/{flat}_{number:06d}.jpg", 1),  # mmpose
    Layout("frames by subject and sequence", "S{s}/images/{flat}/{flat}_{number:06d}.jpg", 1),  # mmhuman3d
    Layout("frames in one folder", "images/{flat}_{number:06d}.jpg", 1),  # SPIN
    Layout("frames by sequence, from 0", "S{s}/Images/{stem}/frame_{number:06d}.jpg", 0),  # posepile
    Layout("frames by numbers of actions", "{numbers}/{numbers}_{number:06d}.jpg", 1),  # I2L-MeshNet
    Layout("frames by numbers of actions", "images/{numbers}/{numbers}_{number:06d}.jpg", 1),
)


class Sequence(NamedTuple):
    """What one camera saw of one take of an action."""

    subject: int
    action: int
    subaction: int
    name: str
    camera: int

    @property
    def group(self) -> str:
        """What the set calls it, beginning with the subject."""
        return f"S{self.subject}/{self.name}.{CAMERAS[self.camera]}"

    @property
    def faulty(self) -> bool:
        """Whether its joints are shifted."""
        return self.subject == 9 and self.name in FAULTY

    def path(self, pattern: str, number: int = 0, kind: str = "") -> str:
        """A path relative to the raw data."""
        stem = f"{self.name}.{CAMERAS[self.camera]}"
        return pattern.format(
            s=self.subject,
            stem=stem,
            flat=f"S{self.subject}_{stem.replace(' ', '_')}",
            numbers=f"s_{self.subject:02d}_act_{self.action:02d}_subact_{self.subaction:02d}_ca_{self.camera + 1:02d}",
            mosh=f"{self.name}_cam{self.camera}_aligned.pkl",
            number=number,
            kind=kind,
        )

    def find(self, root: Path, patterns: Iterable[str]) -> str | None:
        """The first of some paths that is a file."""
        paths = (self.path(pattern) for pattern in patterns)
        return next((path for path in paths if (root / path).is_file()), None)

    def pose_file(self, root: Path, kind: str) -> str:
        """Where a pose file is, or belongs."""
        folders = [self.path(pattern, kind=kind) for pattern in _POSES]
        name = self.name if kind == "D3_Positions" else f"{self.name}.{CAMERAS[self.camera]}"
        return f"{next((folder for folder in folders if (root / folder).is_dir()), folders[0])}/{name}.cdf"

    def layout(self, root: Path, step: int) -> Layout | None:
        """Where its pictures are; none: there are none. Of extracted frames one of the first ten tells."""
        for layout in LAYOUTS:
            if not (root / self.path(layout.pattern)).parent.is_dir():  # one look instead of ten
                continue
            numbers = [0] if layout.first is None else [layout.first + frame for frame in range(0, 10 * step, step)]
            if any((root / self.path(layout.pattern, number)).is_file() for number in numbers):
                return layout
        return None

    def picture(self, layout: Layout, frame: int) -> str:
        """`Row.frame` of a frame."""
        if layout.first is None:
            return f"{self.path(layout.pattern)}@{frame}"
        return self.path(layout.pattern, frame + layout.first)


class Camera(NamedTuple):
    """A camera as it stood for one subject."""

    intrinsics_33: np.ndarray
    distortion_8: np.ndarray
    rotation_33: np.ndarray
    translation_3: np.ndarray
    """World → camera, metres."""
    size: tuple[int, int]
    """Width and height of its pictures."""


class Metadata(NamedTuple):
    """What metadata.xml tells."""

    names: dict[tuple[int, int, int], str]
    """Names of files by subject, action and subaction, without those that hold all actions."""
    sizes: dict[int, list[list[int]]]
    """Rows and columns of the pictures, by subject and camera."""
    placed: np.ndarray
    """(4, 11, 6) angles, radians, and position, mm, by camera and subject."""
    lenses: np.ndarray
    """(4, 9) f, c, k1 k2 k3, p1 p2 by camera."""

    def camera(self, sequence: Sequence) -> Camera:
        """The camera of a sequence: X_cam = R (X_world - position), R = Rx Ry Rz."""
        fx, fy, cx, cy, k1, k2, k3, p1, p2 = self.lenses[sequence.camera]
        place = self.placed[sequence.camera, sequence.subject - 1]
        rotation = product(*rotations(np.diag(place[:3])))  # about x, y and z
        rows, columns = self.sizes[sequence.subject][sequence.camera]
        return Camera(
            np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
            np.array([k1, k2, p1, p2, k3, 0, 0, 0]),
            rotation,
            -exact.matmul(rotation, place[3:, None] / 1000)[:, 0],
            (columns, rows),
        )

    def sequences(self, subjects: Iterable[int], cameras: Iterable[int]) -> list[Sequence]:
        """All of some subjects and cameras, by subject, action and camera."""
        takes = [(take, name) for take, name in sorted(self.names.items()) if take[0] in subjects]
        return [Sequence(*take, name, camera) for take, name in takes for camera in cameras]


def read_metadata(root: Path) -> Metadata:
    """What metadata.xml of a tree tells.

    Raises
    ------
    MetroError
        It is missing or damaged, or lacks what a camera or a name needs.
    """
    path = root / "metadata.xml"
    names: dict[tuple[int, int, int], str] = {}
    sizes: dict[int, list[list[int]]] = {}
    with readable(path, _REMEDY):
        tree = ElementTree.fromstring(path.read_bytes())
        table = [[(cell.text or "").strip() for cell in row] for row in tree.iterfind("mapping/tr")]
        subjects = [int(word.removeprefix("S")) for word in table[0][2:]]
        for action, subaction, *cells in table[1:]:
            for subject, cell in zip(subjects, cells, strict=True):
                if cell.startswith("["):  # a matrix in MATLAB's words, one row per camera
                    sizes[subject] = [[int(n) for n in pair.split()] for pair in cell.strip("[]").split(";")]
                elif action.isdigit() and not cell.startswith("_ALL"):
                    if not re.fullmatch(r"\w[\w ]*", cell):
                        raise ValueError(f"{cell!r} is no name of an action")
                    names[subject, int(action), int(subaction)] = cell
        numbers = np.array((tree.findtext("w0") or "").strip(" []\n").split(), np.float64)
        if numbers.shape != (300,) or not np.isfinite(numbers).all():
            raise ValueError(f"w0 holds {numbers.size} numbers, not 300 finite ones")
        if not names or any(np.shape(sizes.get(s, [])) != (4, 2) or not 0 < s < 12 for s, _, _ in names):
            raise ValueError("its mapping lacks actions, or sizes of pictures")
        if len({(subject, name) for (subject, _, _), name in names.items()}) < len(names):
            raise ValueError("a subject has two actions of one name")
    return Metadata(names, sizes, numbers[:264].reshape(4, 11, 6), numbers[264:].reshape(4, 9))


def read_joints(path: Path, frames: np.ndarray, size: int) -> np.ndarray:
    """Joints (N, 17, `size`) of frames, in the order of H36M_MOCAP17; nan for frames that the file lacks.

    Raises
    ------
    MetroError
        The file is damaged or holds something else.
    """
    poses = read_pose(path)
    if poses.shape[1] != 32 * size:
        raise MetroError(f"{path}: has {poses.shape[1]} numbers per frame, not {32 * size}; {_REMEDY}")
    out = np.full((len(frames), 32, size), np.nan)
    there = frames < len(poses)
    out[there] = poses[frames[there]].reshape(-1, 32, size)
    return out[:, _JOINTS]


def pictures(root: Path, rows: list[Row], size: tuple[int, int]) -> Iterator[np.ndarray | Path | str]:
    """The picture of each row of a sequence, or what is wrong with it; a video is decoded once."""
    path, is_video, _ = rows[0].frame.rpartition("@")
    if not is_video:
        yield from (_picture(root / row.frame, size) for row in rows)
        return
    film: Iterator[tuple[int, np.ndarray]] = video.frames(root / path, [row.labels[0] for row in rows])
    problem = "its video ends before it"
    for row in rows:
        try:
            number, picture = next(film, (None, None))
        except MetroError as err:  # the iterator is at its end by that
            number, picture, problem = None, None, str(err)
        if picture is None or number != row.labels[0]:
            yield problem
        else:
            yield picture if picture.shape[1::-1] == size else _other_size(picture.shape[1::-1], size)


def _picture(path: Path, size: tuple[int, int]) -> Path | str:
    try:
        found = size_of(path)
    except MetroError as err:
        return str(err)
    return path if found == size else _other_size(found, size)


def _other_size(found: tuple[int, ...], size: tuple[int, int]) -> str:
    return f"its picture has {found[0]} × {found[1]} pixels, by metadata.xml {size[0]} × {size[1]}"


def mask_boxes(path: Path, frames: list[int], size: tuple[int, int], factor: float) -> list[np.ndarray | str]:
    """Boxes (4,) of the masks of frames, scaled about their centres, or why there is none."""
    boxes: list[np.ndarray | str] = []
    try:
        for mask in mat.cells(path, "Masks", frames):
            if np.shape(mask) != size[::-1]:
                boxes.append(f"its mask is {np.shape(mask)}, not height × width {size[::-1]}")
                continue
            rows, columns = np.nonzero(mask)
            if len(rows):
                left, top = columns.min() - 0.5, rows.min() - 0.5  # outer edges of pixels
                boxes.append(enlarged([left, top, np.ptp(columns) + 1, np.ptp(rows) + 1], factor))
            else:
                boxes.append("its mask is empty")
    except MetroError as err:  # too few of them, or damaged from here on
        boxes += [str(err)] * (len(frames) - len(boxes))
    return boxes


def read_fits(path: Path, subject: int) -> tuple[dict[tuple[int, int, int], np.ndarray], float]:
    """Fits (85,) by action, subaction and frame: pose, shape, translation in metres; and the file's unit, in metres.

    The translation is in mm by most accounts and in metres in some. Nobody stands 20 m from the middle of the room, nor
    within 20 mm of it, so the median tells.

    Raises
    ------
    MetroError
        The file is damaged, or of another subject.
    """
    fits: dict[tuple[int, int, int], np.ndarray] = {}
    with readable(path, "get it again from where it came"):
        for key, value in entries(path):
            for (*above, action, subaction, frame), fit in _leaves((key,), value):
                if above not in ([], [str(subject)]):
                    raise ValueError(f"fits of subject {'.'.join(above)}")
                parts = [np.asarray(fit[name], np.float64).ravel() for name in _FIT_SIZES]
                if [len(part) for part in parts] != [*_FIT_SIZES.values()]:
                    raise ValueError(f"{action}.{subaction}.{frame} has other sizes than 72, 10 and 3")
                fits[int(action), int(subaction), int(frame)] = np.concatenate(parts)
    far = np.array([np.abs(numbers[-3:]).max() for numbers in fits.values()])
    far = far[np.isfinite(far)]
    unit = 1e-3 if len(far) and np.median(far) > _FARTHEST else 1.0
    for numbers in fits.values():
        numbers[-3:] *= unit
    return fits, unit


def _leaves(keys: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if not isinstance(value, dict) or len(keys) > 4:
        raise ValueError(f"{'.'.join(keys)} leads to no fit")
    if "pose" in value:
        yield keys, value
    else:
        for key, below in value.items():
            yield from _leaves((*keys, key), below)


def read_mosh(path: Path, frames: list[int]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Positions of those frames that MoSh's file has, every fifth at most, their poses (N, 72) and shapes (N, 10).

    Raises
    ------
    MetroError
        The file is damaged or holds something else.
    """
    stored = read_pickle(path)
    with readable(path, "take it away, or get it again"):
        poses, betas = np.asarray(stored["new_poses"], np.float64), np.ravel(np.asarray(stored["betas"], np.float64))
        if poses.ndim != 2 or poses.shape[1] != 72 or len(betas) < 10 or not np.isfinite(betas).all():
            raise ValueError("new_poses are not (frames, 72), or betas not 10 numbers")
    found = [n for n, k in enumerate(frames) if k % 5 == 0 and k // 5 < len(poses) and np.isfinite(poses[k // 5]).all()]
    pose_N72 = poses[[frames[n] // 5 for n in found]]
    half_turn = np.diag([1.0, -1.0, -1.0])  # about x: MoSh's bodies stand on their heads in the camera's frame
    pose_N72[:, :3] = rotation_vector(exact.matmul(rotations(pose_N72[:, :3]), half_turn))
    return found, pose_N72, np.tile(betas[:10], (len(found), 1))
