"""From a raw dataset to verified shards and their manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metro import sources
from metro.body.figure import figure_of
from metro.config import BodyConfig, DatasetConfig
from metro.data.hdf5 import SCHEMA, open_h5, read_facts
from metro.data.parallel import map_shards
from metro.data.records import BadRecord, Left, Record
from metro.data.shards import ShardDataset, ShardWriter
from metro.data.verify import statistics
from metro.errors import MetroError
from metro.files import atomic_file, sha256_of
from metro.sources.index import Index, build_index
from metro.sources.source import Row, Survey, check

_SHOWN = 20  # problems listed by name; the rest is counted


@dataclass(frozen=True)
class _Job:
    """One shard to be written."""

    read: Callable[[DatasetConfig, BodyConfig, Iterable[Row]], Iterator[Record | Left | BadRecord]]
    index: Index
    start: int
    stop: int
    path: Path
    config: DatasetConfig
    body: BodyConfig
    facts: dict[str, str]


def prepare(
    name: str,
    config: DatasetConfig,
    body: BodyConfig,
    out: Path,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Turn a raw dataset into shards and a manifest.

    The annotations are read once, into an index; then each shard is a task. A shard that exists already, is intact and
    was made from the same raw data and parameters is kept, so an interrupted run goes on where it stopped. Records that
    a rule of the set leaves out and records that cannot be read are counted and named in the manifest, apart.

    Parameters
    ----------
    name
        What the dataset is called in the params.
    config, body
        The dataset's section and the body section.
    out
        Folder of the shards, `shard-00000.h5` … and `manifest.json`.
    scheduler, workers, progress
        See `metro.data.parallel.map_shards`.

    Returns
    -------
    dict
        The manifest: counts, digests and statistics.

    Raises
    ------
    MetroError
        The raw data are missing, or do not go with the body or the settings; the disk is full; or more than
        `config.max_bad` of the records are bad.
    """
    source = sources.adapter(config.source)
    survey = source.survey(config, body)
    check(config, body, survey)
    raw = fingerprint(config, survey)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "manifest.json").unlink(missing_ok=True)
    except OSError as err:
        raise MetroError(f"{out}: cannot be written: {err.strerror}") from None
    # Paths name a place on this machine, not the data: they stay out, so that shards are equal everywhere. So does what
    # is put up with, which changes nothing that is written.
    params = config.model_dump(mode="json", exclude={"root", "max_bad"})
    params["body"] = body.model_dump(mode="json", exclude={"path"})
    key = _digest([SCHEMA, params, raw])
    index = build_index(out / "index", key, source.rows(config, body), name, progress)
    jobs = []
    for number, (start, stop) in enumerate(index.ranges(config.shard_size)):
        facts = {
            "source": config.source,
            "licence": source.LICENCE,
            "params": json.dumps(params, sort_keys=True),
            "recipe": _digest([key, number, start, stop]),
        }
        jobs.append(_Job(source.read, index, start, stop, out / f"shard-{number:05d}.h5", config, body, facts))
    wanted = {job.path.name for job in jobs}
    for stale in [p for pattern in ("shard-*.h5", ".shard-*.tmp") for p in out.glob(pattern) if p.name not in wanted]:
        stale.unlink()
    entries = map_shards(
        _prepare_shard,
        jobs,
        scheduler=scheduler,
        workers=workers,
        progress=progress,
        label=f"prepare {name}",
        sizes=[job.stop - job.start for job in jobs],
        unit="rec",
    )
    skipped, left = [*index.bad], Counter(index.left)
    for entry in entries:
        skipped += [(line, count) for line, count in entry.pop("skipped")]
        left.update(entry.pop("left"))
    _check_bad(name, config, sum(entry["count"] for entry in entries), skipped, left)
    manifest = {
        "schema": SCHEMA,
        "name": name,
        "source": config.source,
        "licence": source.LICENCE,
        "raw": raw,
        "count": sum(entry["count"] for entry in entries),
        "expected": survey.expected,
        "checks": [f"{check.verdict}: {check.what}: {check.seen}" for check in survey.checks],
        "left": dict(sorted(left.items())),
        "skipped": sum(count for _, count in skipped),
        "skipped_first": [line for line, _ in skipped[:_SHOWN]],
        "params": params,
        "shards": entries,
        "statistics": statistics(ShardDataset([out / entry["file"] for entry in entries], cache=index.folder)),
    }
    with atomic_file(out / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    shutil.rmtree(index.folder)
    return manifest


def fingerprint(config: DatasetConfig, survey: Survey) -> list[tuple[str, int, str]]:
    """Name, size and sha256 of each annotation file; size and digest of all files of a pattern together."""
    if config.root is None:
        return []
    raw = []
    for file in survey.files:
        paths = file.paths(config.root)
        digests = [(path.relative_to(config.root).as_posix(), sha256_of(path)) for path in paths]
        digest = _digest(digests) if "*" in file.path else digests[0][1]
        raw.append((file.path, sum(path.stat().st_size for path in paths), digest))
    return raw


def _digest(of: Any) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


def _prepare_shard(job: _Job) -> dict[str, Any]:
    """Write one shard, unless it is there; its manifest entry."""
    if not _is_finished(job):
        figure = figure_of(job.body.kind)
        rows = job.index.read(job.start, job.stop)
        with ShardWriter(job.path, job.config.crop, job.config.supervision, figure, job.facts) as writer:
            for record in job.read(job.config, job.body, rows):
                if job.config.gender == "neutral" and isinstance(record, Record):
                    record.gender = "neutral"
                writer.add(record)
    with open_h5(job.path) as file:
        facts = read_facts(file)
        count = len(file["labels/keys"])
    size, digest = job.path.stat().st_size, sha256_of(job.path)
    kept = {name: facts[name] for name in ("skipped", "left")}
    return {"file": job.path.name, "count": count, "bytes": size, "sha256": digest, **kept}


def _is_finished(job: _Job) -> bool:
    try:
        with open_h5(job.path) as file:
            if read_facts(file).get("recipe") != job.facts["recipe"]:
                return False
        ShardDataset([job.path]).check_images()
        return True
    except MetroError:
        return False  # missing or damaged: made again


def _check_bad(
    name: str, config: DatasetConfig, count: int, skipped: list[tuple[str, int]], left: dict[str, int]
) -> None:
    """Refuse a set of which too much cannot be read, or of which nothing is left."""
    bad = sum(n for _, n in skipped)
    if not count and not bad:
        why = "; ".join(f"{n} left out: {reason}" for reason, n in sorted(left.items()))
        raise MetroError(f"{name}: source {config.source!r} has no records for split {config.split!r}"
                         f"{f' ({why})' if why else ''}")  # fmt: skip
    if bad > config.max_bad * (count + bad) or not count:
        raise MetroError(
            f"{name}: {bad} of {count + bad} records {'is' if bad == 1 else 'are'} bad, the first: {skipped[0][0]}; "
            f"mend {'it' if bad == 1 else 'them'}"
            + (f" or raise datasets.{name}.max_bad, now {config.max_bad:g}" if count else "")
        )
