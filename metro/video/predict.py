"""`metro predict` of videos and folders of frames."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from metro.detect import detector
from metro.errors import MetroError
from metro.export.boxes import read_boxes, read_table
from metro.export.load import open_predictor
from metro.export.predictor import Predictor, box_table, knows_hands
from metro.files import GET_AGAIN, sha256_of
from metro.version import __version__
from metro.video.clip import Clip, open_clip
from metro.video.result import is_done, paths, write
from metro.video.run import Find, Options, predict_parts
from metro.video.work import Work
from metro.viz.overlay import Image

LEVELS = 1
"""How small the parts of a frame are that a detector looks at: one level more takes four times as long."""
SHORT = 0.98
"""Share of the frames that a header tells of, below which a video is said to be cut; headers are a few frames off."""


@dataclass(frozen=True)
class People:
    """Who is looked for in a clip, and by whom."""

    boxes: Path | None
    """File of boxes; None: a detector finds people."""
    detector: str
    hands: bool
    """Whether hands were asked for, which only a hand model knows."""
    most: int | None
    """Of a frame, the surest; None: all."""
    least: float | None
    """Score from which on people count; None: what suits the detector."""
    left_hand: bool
    """Whether all are left hands."""


def predict_clips(
    clips: Sequence[tuple[Path, Sequence[Path]]],
    model: str,
    device: str | None,
    people: People,
    out: Path,
    fps: float | None,
    options: Options,
    focal: float | None,
    overwrite: bool,
) -> None:
    """Predict videos and folders, which come with their files, one after the other.

    Raises
    ------
    MetroError
        What was asked for cannot be, or some failed.
    """
    opened = []
    failed = []
    for path, files in clips:
        try:
            opened.append(open_clip(path, files, fps))
        except MetroError as err:
            failed.append(str(err))
    names = [clip.name for clip in opened]
    if twice := [clip for clip in opened if names.count(clip.name) > 1]:
        raise MetroError(f"{twice[0].path}, {twice[1].path}: results of one name; give each an --out of its own")
    if people.boxes and len(clips) > 1:
        raise MetroError(f"--boxes are of one clip, here are {len(clips)}")
    if opened:
        out.mkdir(parents=True, exist_ok=True)
        predictor = open_predictor(model, device, people.hands, people.left_hand)
        predictor.passes = 1  # twice would take twice the time
        find = None if people.boxes else by_detector(people, knows_hands(predictor.network))
    for clip in opened:
        try:
            found = find or by_boxes(clip, people)
            print(predict_clip(clip, predictor, found, people, out, options, focal, overwrite), flush=True)
        except MetroError as err:
            failed.append(str(err))
    if failed:
        count_told = f"{len(failed)} of {len(clips)} clips failed: " if len(clips) > 1 else ""
        raise MetroError(count_told + "; ".join(failed))


def predict_clip(
    clip: Clip,
    predictor: Predictor,
    find: Find,
    people: People,
    out: Path,
    options: Options,
    focal: float | None,
    overwrite: bool,
) -> str:
    """Predict a clip and write its results; says what was done.

    Raises
    ------
    MetroError
        There are other results in the place, nobody is in the clip, or it cannot be read.
    """
    stem, folder = out / clip.name, out / f".{clip.name}.work"
    key = _key(clip, predictor, people, options, focal)
    if not overwrite:
        if is_done(stem, key):
            return f"{clip.path}: was predicted already → {stem}*"
        if not Work.begun(folder, key) and (there := [path for path in paths(stem) if path.exists()]):
            raise MetroError(f"{there[0]}: exists already; give --overwrite to replace it")
    work = Work(folder, key)
    frames = predict_parts(clip, predictor, find, work, options, progress=sys.stderr.isatty())
    count = write(stem, work, clip, predictor, focal, key) if frames else 0
    work.remove()
    if not frames:
        raise MetroError(f"{clip.path}: holds no frame that can be decoded; {GET_AGAIN}")
    if not count:
        raise MetroError(
            f"{clip.path}: nobody was found in its {frames} frames; give --boxes FILE.json, or lower --min-score"
        )
    cut = f" (its header tells of {clip.count} frames; is the file complete?)" if frames < SHORT * clip.count else ""
    return f"{clip.path}: {count} predicted in {frames} frames → {stem}*{cut}"


def by_detector(people: People, is_hand: bool) -> Find:
    """People as a detector finds them.

    Raises
    ------
    MetroError
        It cannot be opened, or there is none.
    """
    detect = detector(people.detector, hands=is_hand, levels=LEVELS, least=people.least, most=people.most)
    if detect is None:
        raise MetroError("--detector none: in a clip people have to be found, or given with --boxes")

    def find(number: int, image: Image) -> list[list[float]]:
        return [[*found.box, found.score, float(found.left or people.left_hand)] for found in detect(image)]

    return find


def by_boxes(clip: Clip, people: People) -> Find:
    """People by a file of boxes: of a folder by the names of its frames, of a video by their numbers, from 0.

    Raises
    ------
    MetroError
        The file is damaged, lacks a frame of a folder, or has a name that is no number.
    """
    boxes, left = people.boxes, float(people.left_hand)
    assert boxes
    if clip.files:
        table: Mapping[int, Any] = dict(enumerate(read_boxes(boxes, clip.files)))
    else:
        named = {PurePath(str(name)).stem: rows for name, rows in read_table(boxes)[0].items()}
        if wrong := [name for name in named if not (name.isdecimal() and len(name) < 18)]:
            raise MetroError(
                f"{boxes}: {wrong[0]!r:.50} is no frame of {clip.path}, which are called 0, 1, …, or 000000.png"
            )
        table = {int(name): rows for name, rows in named.items()}

    def find(number: int, image: Image) -> list[list[float]]:
        rows = box_table(table.get(number, []), f"{boxes}, frame {number}")
        return [[*row[:4], math.nan if row[4] is None else row[4], left] for row in rows]

    return find


def _key(clip: Clip, predictor: Predictor, people: People, options: Options, focal: float | None) -> str:
    network = predictor.network
    content = {
        "clip": clip.digest(),
        "fps": clip.fps,
        "model": network.meta,
        "runs_in": type(network).__name__,
        "people": asdict(people) | {"boxes": people.boxes and sha256_of(people.boxes)},
        **asdict(options),
        "focal": focal,
        "metro": __version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
