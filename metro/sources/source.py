"""What an adapter is: a module of this package with the constants and functions of `Source`.

`survey` looks at what is there, `rows` reads the annotations once and streams what becomes the index of the set, `read`
turns rows of the index into records. All three get the dataset's settings and the body section; `rows` and `read` are
called on raw data whose survey found nothing missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from metro.body.figure import HAND, figure_of
from metro.config import BodyConfig, DatasetConfig
from metro.data.records import BadRecord, Left, Record
from metro.errors import MetroError
from metro.files import readable
from metro.words import MARKER


class Row(NamedTuple):
    """One record in the index: who it is, and where its labels are."""

    frame: str
    """As `Record.frame`: the picture's path relative to the raw data, or ``VIDEO@N`` for frame N, from 0."""
    person: int
    """As `Record.person`: the set's own number of the person."""
    group: str
    """Rows of one group follow one another and are read together: those of a picture, a video, a sequence."""
    labels: Any = None
    """What JSON holds (numbers exactly): the labels themselves, or their place in files that are quick to open."""


class RawFile(NamedTuple):
    """A file that a set is read from, or that it lacks."""

    path: str
    """Relative to the raw data. With a `*`: all files of that pattern, for sets that keep the labels of each picture in
    files of their own."""
    found: bool
    origin: str
    """The download that it comes in, or the page: what to fetch if it is missing."""

    def paths(self, root: Path) -> list[Path]:
        """The file itself, or those of the pattern in the order of their names."""
        return sorted(root.glob(self.path)) if "*" in self.path else [root / self.path]


class Archive(NamedTuple):
    """A download that files of a set come in, and what to take from it (`metro.sources.unpack`)."""

    example: str
    """Its name, or one of its names, as it is handed out."""
    name: str
    """Expression that the whole name matches, or, if it has a slash, the path relative to the raw data."""
    members: str
    """Expression for the files that are wanted: what remains of a path after any folders. Group 1 is kept of it."""
    folder: str
    """Where they go, relative to the raw data; may refer to groups of `name`."""


class Check(NamedTuple):
    """Whether the data are as the adapter takes them to be, where no document says so."""

    what: str
    passed: bool | None
    """None: these data do not tell."""
    seen: str
    """The figure that decides, in words."""

    @property
    def verdict(self) -> str:
        """One word."""
        return "unknown" if self.passed is None else "ok" if self.passed else "DOUBT"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What `Source.survey` found out, in seconds."""

    dialect: str
    """Which of the layouts that the set comes in was recognised, in words."""
    files: tuple[RawFile, ...]
    """Annotation files, those that are missing among them. Their names, sizes and digests are part of what a shard is
    made from; pictures and videos are not in here."""
    missing: tuple[str, ...] = ()
    """Other things that are missing, such as folders of pictures, one line each. Nothing is prepared while there are
    any."""
    expected: int | None = None
    """Records that the complete official set gives with these options, where that is known."""
    figure: Literal["body", "hand"] | None = "body"
    """What the set shows; none: what the settings say."""
    parameters: Literal["smpl", "mano"] | None = None
    """The model whose pose and shape the set holds."""
    posed: bool = False
    """Whether the annotated joints are read off the posed model, which is then needed whatever the supervision."""
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    """What a user should know beside: one line each."""


class Source(Protocol):
    """A module `metro.sources.NAME`. Its docstring opens with one line that says what it reads."""

    LICENCE: str
    """Terms of the data, one line."""
    SITE: str
    """Where the data are had from."""

    def survey(self, config: DatasetConfig, body: BodyConfig) -> Survey:
        """What is there and what is missing; opens no file of hundreds of MB.

        Raises
        ------
        MetroError
            The raw data are of no layout that is known, or options contradict one another.
        """

    def rows(self, config: DatasetConfig, body: BodyConfig) -> Iterator[Row | Left | BadRecord]:
        """One row per record, in an order that depends on the annotations alone; what is left out, and what cannot be
        read. Memory does not grow with the set."""

    def read(self, config: DatasetConfig, body: BodyConfig, rows: Iterable[Row]) -> Iterator[Record | Left | BadRecord]:
        """The records of consecutive rows, one at a time and in their order: a record, why there is none after all, or
        what is wrong with it. People of one picture share the `image` object."""


def root_of(config: DatasetConfig) -> Path:
    """Folder of the raw data.

    Raises
    ------
    MetroError
        It is not named, or is no folder.
    """
    if config.root is None:
        raise MetroError(f"source {config.source}: set `root` of the dataset to the folder of the raw data")
    if not config.root.is_dir():
        raise MetroError(f"{config.root}: no such folder; set `root` of the dataset to where the raw data of "
                         f"{config.source} are (`metro data doctor {config.source}` tells what it needs)")  # fmt: skip
    return config.root


def check(config: DatasetConfig, body: BodyConfig, survey: Survey) -> None:
    """Refuse what cannot be prepared before any work.

    Raises
    ------
    MetroError
        Raw data are missing, or show or hold something else than the body of the settings.
    """
    lost = [f"{file.path} ({file.origin})" for file in survey.files if not file.found] + [*survey.missing]
    if lost:
        more = f", and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise MetroError(
            f"{config.root}: lacks {', '.join(lost[:3])}{more}; `metro data doctor {config.source}` lists what it needs"
        )
    figure = "hand" if figure_of(body.kind) is HAND else "body"
    if survey.figure not in (figure, None):
        raise MetroError(f"source {config.source} shows a {survey.figure}, but body.kind={body.kind} is a {figure}; "
                         f"set body.kind to a {survey.figure}, or take this set out of `datasets`")  # fmt: skip
    kind = whose_parameters(config, survey)
    if kind not in (body.kind, None) and (survey.posed or config.supervision == "mesh"):
        remedy = f"set body.kind: {kind}"
        if not survey.posed:
            remedy += ", or supervision: joints_3d of the dataset, which leaves them out"
        raise MetroError(
            f"source {config.source}: its poses and shapes are those of {kind}, not of {body.kind}; {remedy}"
        )


def whose_parameters(config: DatasetConfig, survey: Survey) -> str | None:
    """Kind of the body model that pose and shape in the raw data belong to.

    The raw trees that `metro data fixture` writes have the official layout and the parameters of an open model, which
    their marker file tells.
    """
    if survey.parameters is None or config.root is None:
        return survey.parameters
    return marked_body(config.root) or survey.parameters


def marked_body(root: Path) -> str | None:
    """Kind of the body that a raw tree's marker names; none for trees without a marker, the real ones."""
    marker = root / MARKER
    if not marker.is_file():
        return None
    with readable(marker, "make the fixture again"):
        return str(json.loads(marker.read_text("utf-8"))["body"])
