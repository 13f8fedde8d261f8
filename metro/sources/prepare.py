"""From a raw dataset to verified shards and their manifest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metro import sources
from metro.body.figure import Figure, figure_of
from metro.config import BodyConfig, DatasetConfig
from metro.data.hdf5 import SCHEMA, open_h5, read_facts
from metro.data.parallel import map_shards
from metro.data.shards import ShardDataset, ShardWriter
from metro.data.verify import statistics
from metro.errors import MetroError
from metro.files import atomic_file, sha256_of

_SHOWN = 20  # problems listed by name; the rest is counted


@dataclass(frozen=True)
class _Job:
    """One shard to be written."""

    task: sources.ShardTask
    path: Path
    config: DatasetConfig
    figure: Figure
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

    A shard that exists already, is intact and was made from the same parameters is kept, so an interrupted run goes
    on where it stopped. Unreadable records are left out, counted and named in the manifest.

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
        The source is unknown or its raw data missing, the disk is full, or more than `config.max_bad` of the records
        are bad.
    """
    tasks = sources.shard_tasks(config, body)
    if not tasks:
        raise MetroError(f"{name}: source {config.source!r} has no records for split {config.split!r}")
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
    jobs = []
    for number, task in enumerate(tasks):
        recipe = json.dumps([SCHEMA, params, number, len(tasks)], sort_keys=True)
        facts = {
            "source": config.source,
            "licence": sources.licence(config.source),
            "params": json.dumps(params, sort_keys=True),
            "recipe": hashlib.sha256(recipe.encode()).hexdigest(),
        }
        jobs.append(_Job(task, out / f"shard-{number:05d}.h5", config, figure_of(body.kind), facts))
    wanted = {job.path.name for job in jobs}
    for stale in [p for pattern in ("shard-*.h5", ".shard-*.tmp") for p in out.glob(pattern) if p.name not in wanted]:
        stale.unlink()
    entries = map_shards(
        _prepare_shard, jobs, scheduler=scheduler, workers=workers, progress=progress, label=f"prepare {name}"
    )
    return _write_manifest(name, config, params, out, entries)


def _prepare_shard(job: _Job) -> dict[str, Any]:
    """Write one shard, unless it is there; its manifest entry."""
    if not _is_finished(job):
        with ShardWriter(job.path, job.config.crop, job.config.supervision, job.figure, job.facts) as writer:
            for record in job.task():
                writer.add(record)
    with open_h5(job.path) as file:
        skipped = read_facts(file)["skipped"]
        count = len(file["labels/keys"])
    size, digest = job.path.stat().st_size, sha256_of(job.path)
    return {"file": job.path.name, "count": count, "bytes": size, "sha256": digest, "skipped": skipped}


def _is_finished(job: _Job) -> bool:
    try:
        with open_h5(job.path) as file:
            if read_facts(file).get("recipe") != job.facts["recipe"]:
                return False
        ShardDataset([job.path]).check_images()
        return True
    except MetroError:
        return False  # missing or damaged: made again


def _write_manifest(
    name: str, config: DatasetConfig, params: dict[str, Any], out: Path, entries: list[dict[str, Any]]
) -> dict[str, Any]:
    skipped = [problem for entry in entries for problem in entry.pop("skipped")]
    count = sum(entry["count"] for entry in entries)
    if not count and not skipped:
        raise MetroError(f"{name}: the source {config.source!r} gave no records")
    if len(skipped) > config.max_bad * (count + len(skipped)) or not count:
        raise MetroError(
            f"{name}: {len(skipped)} of {count + len(skipped)} records {'is' if len(skipped) == 1 else 'are'} bad, the "
            f"first: {skipped[0]}; mend {'it' if len(skipped) == 1 else 'them'}"
            + (f" or raise datasets.{name}.max_bad, now {config.max_bad:g}" if count else "")
        )
    manifest = {
        "schema": SCHEMA,
        "name": name,
        "source": config.source,
        "licence": sources.licence(config.source),
        "count": count,
        "skipped": len(skipped),
        "skipped_first": skipped[:_SHOWN],
        "params": params,
        "shards": entries,
        "statistics": statistics(ShardDataset([out / entry["file"] for entry in entries])),
    }
    with atomic_file(out / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest
