"""Sets of full size: what indexing and preparing them costs, the memory it takes, and what a killed run leaves.

``python benchmarks/datasets.py FOLDER [PART …]`` writes made-up raw trees into FOLDER (a few GB, which stay there for
the next time) and ``benchmarks/datasets.md`` from the results of all parts that have been run: `coco`, `freihand`,
`h36m`, `video`, `killed`.

The trees have as many annotations as the official sets and real annotation files, but small pictures, of which a few
are linked again and again; crops have 32 pixels. Rates are therefore those of everything but the pictures, which
`prepare.py` measures. Memory is the most that the system ever counted for each process, looked up every 50 ms.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import psutil
from machine import machine

from metro import sources
from metro.config import BodyConfig, DatasetConfig
from metro.sources.formats import video
from metro.sources.index import build_index
from metro.sources.prepare import prepare

SUBJECTS, ACTIONS, FRAMES, STEP = (1, 5, 6, 7, 8), range(2, 17), 2605, 5  # 312,600 records; METRO has 312,188
POSES = 64  # of a subject, there and back again and again
SIDE = 100  # px of Human3.6M's pictures here
FILM = 300  # frames of a video of true size
ROUNDS, KILLS, LATEST_S = 3, 10, 0.05
SETS: dict[str, dict[str, Any]] = {"coco": {"supervision": "joints_2d"}, "freihand": {}, "h36m": {}}
WORKERS = {"coco": (1, 2), "freihand": (2,), "h36m": (2,)}
READ = {  # JSON files that are read whole
    "coco": ("annotations/*.json",),
    "freihand": ("training_K.json", "training_mano.json", "training_xyz.json"),
    "h36m": ("*_smpl_param.json",),
}

# ------------------------------------------------------------------------------------------------------- raw trees
# Fixtures are imported where they are used: they bring PyTorch along, and the processes that are measured have none.


def h36m_tree(folder: Path, frames: int = FRAMES, actions: range = ACTIONS, side: int = SIDE) -> None:
    """Five subjects, four cameras, two takes of each action: pose files, fits of every fifth frame, pictures."""
    from metro.fixtures import h36m
    from metro.fixtures.stage import Stage, backdrop, save

    folder.mkdir(parents=True)
    stage = Stage()
    _write_metadata(folder / "metadata.xml", stage.seed, side)
    (folder / "metro-fixture.json").write_text('{"body": "open"}')
    pose_T = np.abs((np.arange(frames) + POSES) % (2 * POSES - 2) - (POSES - 1))
    for subject in SUBJECTS:
        people = stage.motion(subject, "neutral", POSES, up="z")
        world_P = [person.joints_of([h36m.JOINT_PLACES[j] for j in range(32)]) for person in people]
        takes = [(action, subaction) for action in actions for subaction in (1, 2)]
        _write_fits(folder / f"Human36M_subject{subject}_smpl_param.json", people, takes, pose_T)
        for c in range(4):
            camera = h36m.camera_of(stage.seed, subject, c)
            intrinsics = np.diag([side / 1000, side / 1000, 1]) @ camera.K_33
            camera = replace(camera, K_33=intrinsics, size=(side, side))
            seen_P = [camera.see(points) for points in world_P]
            picture = folder / f"S{subject}" / "picture.jpg"
            save(picture, backdrop(camera.size, stage.random(subject, c)))
            first: dict[str, Path] = {}  # all takes are of one motion
            for n, (action, subaction) in enumerate(takes):
                stem = f"{h36m.name_of(subject, action, subaction)}.{h36m.CAMERAS[c]}"
                for kind, values_P in (
                    ("D2_Positions", [camera.image(points) for points in seen_P]),
                    ("D3_Positions_mono", [1000 * points for points in seen_P]),
                ):
                    path = folder / f"S{subject}" / "MyPoseFeatures" / kind / f"{stem}.cdf"
                    if n == 0:
                        first[kind] = path
                        h36m._write_cdf(path, [values_P[pose] for pose in pose_T])
                    else:
                        os.link(first[kind], path)
                title = f"S{subject}_{stem.replace(' ', '_')}"
                shown = folder / f"S{subject}" / title
                shown.mkdir()
                for frame in range(0, frames, STEP):
                    os.link(picture, shown / f"{title}_{frame + 1:06d}.jpg")
            picture.unlink()


def _write_metadata(path: Path, seed: int, side: int) -> None:
    """The fixture's, with other sizes of pictures."""
    from metro.fixtures import h36m

    tree = ElementTree.fromstring(h36m._metadata(seed))
    for cell in tree.iter("td"):
        if (cell.text or "").startswith("["):
            cell.text = f"[{';'.join([f'{side} {side}'] * 4)}]"
    w0 = tree.find("w0")
    numbers = [float(word) for word in w0.text.strip("[]").split()]
    for lens in range(264, 300, 9):
        numbers[lens : lens + 4] = [number * side / 1000 for number in numbers[lens : lens + 4]]
    w0.text = f"[{' '.join(map(repr, numbers))}]"
    path.write_bytes(ElementTree.tostring(tree))


def _write_fits(path: Path, people: list[Any], takes: list[tuple[int, int]], pose_T: np.ndarray) -> None:
    fits = [
        json.dumps({"pose": p.pose_aa.tolist(), "shape": p.betas.tolist(), "trans": (1000 * p.transl).tolist()})
        for p in people
    ]
    frames = ", ".join(f'"{frame}": {fits[pose_T[frame]]}' for frame in range(0, len(pose_T), STEP))
    actions = sorted({action for action, _ in takes})
    with path.open("w") as file:
        for action in actions:
            both = f'"1": {{{frames}}}, "2": {{{frames}}}'
            file.write(f'{"{" if action == actions[0] else ", "}"{action}": {{{both}}}')
        file.write("}")


def film_tree(folder: Path) -> None:
    """One action of one subject as videos of true size: a photograph with a moving part of another one."""
    from prepare import photograph

    h36m_tree(folder, FILM, range(2, 3), side=1000)
    for shown in [path for path in (folder / "S1").iterdir() if path.name.startswith("S1_")]:
        shutil.rmtree(shown)
    for subject in SUBJECTS[1:]:
        shutil.rmtree(folder / f"S{subject}")
    (folder / "S1" / "Videos").mkdir()
    behind, before = photograph(0), photograph(1)
    for number, path in enumerate(sorted((folder / "S1" / "MyPoseFeatures" / "D2_Positions").iterdir())):
        noise = np.random.default_rng(number).integers(0, 5, (8, 1000, 1000, 3), np.uint8)
        film = folder / "S1" / "Videos" / f"{path.stem}.mp4"
        writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"mp4v"), 50, (1000, 1000))
        for frame in range(FILM):
            picture = behind.copy()
            left = 300 + round(200 * np.sin(frame / 40))
            picture[250:750, left : left + 250] = before[250:750, 300:550]
            writer.write(cv2.add(picture, noise[frame % len(noise)]))
        writer.release()


def tree(folder: Path, name: str) -> Path:
    """The raw tree of a set, written if it is not there."""
    raw, partial = folder / name, folder / f"{name}.partial"
    if not raw.is_dir():
        from metro import fixtures

        shutil.rmtree(partial, ignore_errors=True)
        if name == "h36m":
            h36m_tree(partial)
        elif name == "video":
            film_tree(partial)
        elif name == "killed-h36m":
            h36m_tree(partial, 60, range(2, 5))
        elif name == "killed-freihand":
            fixtures.write("freihand", partial, people=300)
        elif name == "killed-coco":
            from metro.fixtures import coco
            from metro.fixtures.stage import Stage, Truth

            partial.mkdir()
            coco._write_full(partial, Stage(), Truth("coco").split("train", "train"), shown=1000, people=4000)
        else:
            fixtures.write(name, partial, dialect="full")
        partial.rename(raw)
    return raw


# ----------------------------------------------------------------------------------- what runs in processes of its own


def settings(name: str, raw: Path, **more: Any) -> tuple[DatasetConfig, BodyConfig]:
    """How a set is prepared."""
    crop = {"box_px": 32, "margin": 1.0}
    config = DatasetConfig.model_validate({"source": name, "root": raw, "crop": crop} | SETS[name] | more)
    return config, BodyConfig(kind="open_hand" if name == "freihand" else "open")


def spent(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds by the clock, processor seconds with those of child processes that have ended, and the result."""
    before, start = _processor(), time.perf_counter()
    result = work()
    return time.perf_counter() - start, _processor() - before, result


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def step(what: str, name: str, raw: str, out: str, workers: str, size: str) -> None:
    """Do one thing and print what it took, after a line that says that all is loaded."""
    config, body = settings(name, Path(raw), shard_size=int(size))
    source = sources.adapter(name)
    print("ready", flush=True)
    if what == "survey":
        wall, cpu, _ = spent(lambda: source.survey(config, body))
        count = 0
    elif what == "index":
        wall, cpu, index = spent(lambda: build_index(Path(out), "key", source.rows(config, body), name, False))
        count = index.records
    else:
        work = lambda: prepare(name, config, body, Path(out), workers=int(workers), progress=False)  # noqa: E731
        wall, cpu, manifest = spent(work)
        count = manifest["count"]
    print(json.dumps({"wall": wall, "cpu": cpu, "count": count}))


def started(*words: Any) -> subprocess.Popen[str]:
    """A process that does a step, in a group of its own, once it has loaded all that it needs."""
    command = [sys.executable, __file__, "step", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def watched(what: str, name: str, raw: Path, out: Path, workers: int = 1) -> dict[str, float]:
    """What a step took, with peak MiB of its process (`parent`) and of the largest that it started (`worker`)."""
    process = started(what, name, raw, out, workers, 2500)
    peaks: dict[int, float] = {}
    while process.poll() is None:
        try:
            family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        except psutil.NoSuchProcess:
            break
        for number in family:
            peaks[number] = max(peaks.get(number, 0), _peak(number))
        time.sleep(LATEST_S)
    assert process.wait() == 0
    found: dict[str, float] = json.loads(process.stdout.read())
    parent = peaks.pop(process.pid)
    return found | {"parent": parent, "worker": max(peaks.values(), default=0)}


def _peak(process: int) -> float:
    """The most MiB that a process had in memory so far, pages of files among them."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0  # it has ended
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


# ----------------------------------------------------------------------------------------------------------- parts


def full(folder: Path, name: str) -> dict[str, Any]:
    """A set of full size: survey, index, and all of it by so many workers."""
    raw, out = tree(folder, name), folder / f"out-{name}"
    found: dict[str, Any] = {"load": os.getloadavg()[0]}
    whole = [path for pattern in READ[name] for path in raw.glob(pattern)]
    found["json"] = sum(path.stat().st_size for path in whole)
    found["survey"] = watched("survey", name, raw, out)
    found["index"] = watched("index", name, raw, out / "index")
    found["loads"] = spent(lambda: [json.loads(path.read_bytes()) for path in whole])[1]
    for workers in WORKERS[name]:
        shutil.rmtree(out, ignore_errors=True)
        found[f"prepare {workers}"] = watched("prepare", name, raw, out, workers)
        print(name, workers, found[f"prepare {workers}"], flush=True)
    shutil.rmtree(out)
    return found


def films(folder: Path, name: str) -> dict[str, Any]:
    """Videos of true size: records per processor second, and decoding alone."""
    raw, out = tree(folder, name), folder / "out-video"
    paths = sorted((raw / "S1" / "Videos").iterdir())
    found: dict[str, Any] = {"load": os.getloadavg()[0], "bytes": sum(p.stat().st_size for p in paths), "rates": {}}
    for title, crop in (("224 px × 1.77", (224, 1.77)), ("128 px × 1.5", (128, 1.5))):
        config, body = settings("h36m", raw, crop=dict(zip(("box_px", "margin"), crop, strict=True)))
        rates = []
        for turn in range(ROUNDS + 1):
            shutil.rmtree(out, ignore_errors=True)
            wall, cpu, manifest = spent(lambda c=config, b=body: prepare("h36m", c, b, out, workers=1, progress=False))
            _, decode, _ = spent(lambda: [sum(1 for _ in video.frames(p, range(0, FILM, STEP))) for p in paths])
            if turn:  # the first loads kernels
                rates.append((manifest["count"] / wall, manifest["count"] / cpu, manifest["count"] / decode))
        found["rates"][title] = [statistics.median(column) for column in zip(*rates, strict=True)]
    shutil.rmtree(out)
    return found


def killed(folder: Path, name: str) -> dict[str, Any]:
    """Runs that are killed at some moment and begun again, against one that is left alone."""
    found = {}
    for each in SETS:
        raw, out = tree(folder, f"killed-{each}"), folder / "out-killed"
        shutil.rmtree(out, ignore_errors=True)
        process, start = started("prepare", each, raw, out, 2, 100), time.perf_counter()
        assert process.wait() == 0
        lasts, whole = time.perf_counter() - start, _content(out)
        shards = []
        for moment in np.random.default_rng(0).uniform(0, lasts, KILLS):
            shutil.rmtree(out)
            process = started("prepare", each, raw, out, 2, 100)
            time.sleep(moment)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shards.append(sum(1 for _ in out.glob("shard-*.h5")))
            assert started("prepare", each, raw, out, 2, 100).wait() == 0
            assert _content(out) == whole, (each, moment)
        found[each] = {"seconds": lasts, "files": len(whole), "shards": shards}
        print(each, found[each], flush=True)
        shutil.rmtree(out)
    return found


def _content(folder: Path) -> dict[str, str]:
    """Digests of all files."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


PARTS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    **dict.fromkeys(SETS, full),
    "video": films,
    "killed": killed,
}

# ------------------------------------------------------------------------------------------------------------ page


def page(results: dict[str, Any]) -> Iterator[str]:
    """Lines of the page."""
    sets = {name: results[name] for name in SETS if name in results}
    yield "# Sets of full size"
    yield ""
    yield f"{machine()}; Python {sys.version.split()[0]}; `python benchmarks/datasets.py FOLDER`"
    yield ""
    yield "Made-up trees with small pictures and as many annotations as the official sets. Seconds of the processor (by"
    yield "the clock); the machine was shared, with the load that the last column tells, and `json.loads` of the same"
    yield "files, which holds all of them in memory, is the yardstick. Human3.6M's index reads 600 pose files beside."
    yield ""
    yield "| set | records | JSON | survey | index | index, per GB | `json.loads`, per GB | peak MiB | load |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, found in sets.items():
        survey, index, size = found["survey"], found["index"], found["json"]
        yield (
            f"| {name} | {index['count']:,} | {size / 1e6:.0f} MB | {survey['cpu']:.1f} ({survey['wall']:.1f}) s | "
            f"{index['cpu']:.0f} ({index['wall']:.0f}) s | **{index['cpu'] / size * 1e9:.0f}** "
            f"({index['wall'] / size * 1e9:.0f}) s | {found['loads'] / size * 1e9:.0f} s | {index['parent']:.0f} | "
            f"{found['load']:.1f} |"
        )
    yield ""
    yield "The whole of `prepare`, index, digests of raw data and statistics among it:"
    yield ""
    yield "| set | workers | records/s by the clock | processor, ms a record | peak MiB, parent | largest worker |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name, found in sets.items():
        for workers in WORKERS[name]:
            run = found[f"prepare {workers}"]
            worker = f"{run['worker']:.0f}" if workers > 1 else ""
            yield (
                f"| {name} | {workers} | {run['count'] / run['wall']:.0f} | {1000 * run['cpu'] / run['count']:.2f} | "
                f"{run['parent']:.0f} | {worker} |"
            )
    if "video" in results:
        found = results["video"]
        kilobytes = found["bytes"] / 8 / FILM / 1000
        yield ""
        yield f"Human3.6M from videos of 1000 × 1000 pixels (MPEG-4, {kilobytes:.0f} kB a frame, every {STEP}th frame),"
        yield f"one worker, medians of {ROUNDS}, load {found['load']:.1f}:"
        yield ""
        yield "| crop | records/s by the clock | per processor second | decoding alone | its share |"
        yield "| --- | ---: | ---: | ---: | ---: |"
        for title, (wall, cpu, decode) in found["rates"].items():
            yield f"| {title} | {wall:.0f} | **{cpu:.0f}** | {decode:.0f} | {100 * cpu / decode:.0f} % |"
    if "killed" in results:
        yield ""
        yield f"Small trees, two workers, all processes killed at {KILLS} random moments and run again: every file is"
        yield "the same, byte for byte, as that of a run that is left alone, and no other file is there."
        yield ""
        yield "| set | a run lasts | files | shards that were there when it was killed |"
        yield "| --- | ---: | ---: | --- |"
        for name, run in results["killed"].items():
            shards = ", ".join(map(str, sorted(run["shards"])))
            yield f"| {name} | {run['seconds']:.1f} s | {run['files']} | {shards} |"


def main(folder: Path, parts: list[str]) -> None:
    """Run parts and write the page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in parts or PARTS:
        (folder / f"{name}.json").write_text(json.dumps(PARTS[name](folder, name)))
    kept = [folder / f"{name}.json" for name in PARTS]
    results = {path.stem: json.loads(path.read_text()) for path in kept if path.is_file()}
    text = "\n".join(page(results)) + "\n"
    Path(__file__).with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    if sys.argv[1] == "step":
        step(*sys.argv[2:])
    else:
        main(Path(sys.argv[1]), sys.argv[2:])
