"""A clip from its frames to its results: people are found, followed, predicted, smoothed and drawn in one pass.

Memory does not depend on the length of a clip: a batch of frames is held at a time, and what was found goes to disk by
parts (`metro.video.work`), from which an interrupted run goes on as if nothing had happened.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from metro.export.predictor import Photo, Predictor
from metro.video.clip import Clip
from metro.video.film import film_size
from metro.video.people import Placed, Smoother, placed
from metro.video.track import People, Tracker, between
from metro.video.work import Work
from metro.viz.overlay import Image

Find = Callable[[int, Image], Sequence[Sequence[float]]]
"""Takes a frame and its number, gives rows x, y, width, height, score (NaN: none), and 1 for a left hand, else 0."""

LOST_S = 1.0
"""Seconds for which people may be lost and keep their number."""
PART = 60
"""Frames of a part, or a few more."""
HELD_BYTES = 128 << 20
"""Of frames in a batch."""


@dataclass(frozen=True)
class Options:
    """What can be chosen."""

    every: int = 1
    """People are looked for in each of so many frames; in between their boxes go in straight lines."""
    smooth: bool = False
    """Whether what is predicted is smoothed over time."""
    batch_size: int = 16
    """People per forward pass."""


def predict_parts(clip: Clip, predictor: Predictor, find: Find, work: Work, options: Options, progress: bool) -> int:
    """Predict the parts of a clip that are missing; returns how many frames it has.

    Raises
    ------
    MetroError
        A frame cannot be read, a box is none, or the disk is full.
    """
    patience = max(1, round(LOST_S * clip.fps))
    tracker, smoother = Tracker(patience), Smoother(clip.fps, patience)
    length = -(-PART // options.every) * options.every
    done = work.parts
    frames = 0
    if done:
        state = work.read(done[-1])
        frames = int(state["frames"])
        tracker.restore(_named("track_", state))
        smoother.restore(_named("smooth_", state))
    with tqdm(total=clip.count or None, initial=frames, desc=clip.name, unit="frame", disable=not progress) as bar:
        followed = _follow(clip.frames(frames), find, tracker, options.every)
        while frames % length == 0:
            batches = _batches(itertools.islice(followed, length), options.batch_size)
            rows, film = [], None
            for batch in batches:
                people = _predict(clip, predictor, batch, options)
                for (number, image, _), those in zip(batch, people, strict=True):
                    those = smoother(number, those) if options.smooth else those
                    film = film or work.film(clip.fps, film_size(image.shape[1], image.shape[0]))
                    film.add(overlay(image, those, predictor.network.faces_F3, film.size))
                    rows += [(number, person) for person in those]
                bar.update(len(batch))
            if film is None:
                break
            film.close()
            frames += film.count
            state = _prefixed("track_", tracker.state()) | _prefixed("smooth_", smoother.state())
            shape = np.array(image.shape[1::-1])
            work.add(film, table(rows, predictor), state | {"frames": np.array(frames), "image_size": shape})
    return frames


def overlay(image: Image, people: Sequence[Placed], faces_F3: np.ndarray, size: tuple[int, int]) -> Image:
    """The meshes of people over their frame, the far ones first, at another (width, height)."""
    height, width = image.shape[:2]
    if size[0] < width - 1 or size[1] < height - 1:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    canvas = np.ascontiguousarray(image[: size[1], : size[0]])
    for person in sorted(people, key=lambda p: p.size):
        canvas = person.draw(canvas, faces_F3, size[0] / width if image.shape[1] < width else 1.0)
    return canvas


def table(rows: Sequence[tuple[int, Placed]], predictor: Predictor) -> dict[str, np.ndarray]:
    """People with the numbers of their frames as arrays, a row each."""
    meta = predictor.network.meta
    people = [person for _, person in rows]
    mesh, joints = (len(rows), meta["mesh_levels"][0], 3), (len(rows), len(meta["joint_names"]), 3)
    return {
        "frame": np.array([frame for frame, _ in rows], np.int32),
        "person": np.array([p.person for p in people], np.int32),
        "left": np.array([p.left for p in people], np.bool_),
        "box": np.array([p.box for p in people], np.float32).reshape(-1, 5),
        "size": np.array([p.size for p in people], np.float64),
        "root": np.array([p.root for p in people], np.float64).reshape(-1, 2),
        "joints": np.array([p.joints for p in people], np.float32).reshape(joints),
        "vertices": np.array([p.vertices for p in people], np.float16).reshape(mesh),
    }


def _follow(
    frames: Iterable[tuple[int, Image]], find: Find, tracker: Tracker, every: int
) -> Iterator[tuple[int, Image, People]]:
    """Frames with the people in them; the first frame is one in which they are looked for."""
    waiting: list[tuple[int, Image]] = []
    last: People = {}
    for number, image in frames:
        if number % every:
            waiting.append((number, image))
            continue
        if tracker.frame < number:  # else an interrupted run has looked already
            tracker.update(number, find(number, image))
        for passed, picture in waiting:
            yield passed, picture, between(last, tracker.people, passed % every / every)
        waiting, last = [], tracker.people
        yield number, image, last
    for passed, picture in waiting:
        yield passed, picture, last


def _batches(frames: Iterable[tuple[int, Image, People]], batch_size: int) -> Iterator[list[tuple[int, Image, People]]]:
    """Frames together, until they hold so many people or fill the memory that is meant for them."""
    batch: list[tuple[int, Image, People]] = []
    for frame in frames:
        batch.append(frame)
        people, held = sum(len(people) for *_, people in batch), len(batch) * frame[1].nbytes
        if people >= batch_size or held >= HELD_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _predict(
    clip: Clip, predictor: Predictor, batch: Sequence[tuple[int, Image, People]], options: Options
) -> list[list[Placed]]:
    photos = [Photo(image, f"{clip.path}, frame {number}") for number, image, _ in batch]
    found: list[dict[int, Placed]] = [{} for _ in batch]
    for left in (False, True):
        chosen = [{p: box for p, box in people.items() if (box[5] >= 0.5) == left} for *_, people in batch]
        if any(chosen):
            boxes = [[box[:4] for box in people.values()] for people in chosen]
            results = iter(predictor(photos, boxes, batch_size=options.batch_size, left_hand=left))
            for those, people in zip(found, chosen, strict=True):
                those |= {person: placed(next(results), person, box, left) for person, box in people.items()}
    return [[those[person] for person in sorted(those)] for those in found]


def _prefixed(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {prefix + name: array for name, array in arrays.items()}


def _named(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
