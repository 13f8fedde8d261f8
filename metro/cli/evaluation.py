"""`metro evaluate`, `metro evaluate-photos`, `metro compare` and `metro protocols`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from metro.cli.options import Batch, Between, Place, ToFile, ToFolder, Word
from metro.errors import MetroError
from metro.words import ProtocolName, Tta


def evaluate(
    data: Path,
    /,
    *,
    model: Word = "open",
    protocol: Literal[ProtocolName, "photos"] = "open",
    out: ToFolder = Path("evaluation"),
    tta: Tta = "none",
    train: list[Path] | None = None,
    body: Place | None = None,
    batch_size: Batch = 64,
    processes: Annotated[int | None, Parameter(validator=Between(1, 256))] = None,
    bootstrap: Annotated[int, Parameter(validator=Between(1, 100_000))] = 1000,
    cases: Annotated[int, Parameter(validator=Between(1, 100))] = 4,
    limit: Annotated[int, Parameter(validator=Between(1, 10**9))] | None = None,
    device: Word | None = None,
) -> str:
    """Evaluate a model on a prepared dataset: tables, intervals, baselines and figures.

    Parameters
    ----------
    data
        Dataset folder written by a prepare stage.
    model
        Checkpoint or bundle folder, `open` or `open-hand` for those that ship, or an MLflow models:/ URI.
    protocol
        Definition of the numbers, see `metro protocols`; `photos` has a command of its own, `metro evaluate-photos`.
    out
        Folder for metrics.json, result.json, samples.npz and the figures.
    tta
        Test-time augmentation: `flip` sees each person in the mirror too, `few` turned by 10° both ways as well;
        `paper` is METRO's for hands, 95 views.
    train
        Dataset folders the model was trained on; the mean-pose baselines come from their labels. Without them they come
        from the benchmark's own labels, which flatters the baselines.
    body
        Licensed body model file, for models that were trained on one; a folder with `KIND_GENDER.npz` where people
        of the dataset are posed on the body of their gender.
    batch_size
        Images per forward pass.
    processes
        Processes on the processor, each with one thread; files are the same however many there are. None: one per core.
    bootstrap
        Resamples of the confidence intervals.
    cases
        Best, median and worst cases drawn, of each.
    limit
        Evaluate the first records only.
    device
        Where to run, e.g. `cuda`; none: a GPU if there is one.
    """
    if protocol == "photos":
        raise MetroError("--protocol photos: `metro evaluate-photos LABELS.json` judges photographs")
    import sys
    from functools import partial

    import numpy as np
    from tqdm import tqdm

    from metro.body.load import load_variant
    from metro.body.model import BodyModel
    from metro.config import EvaluateConfig
    from metro.data.shards import ShardDataset
    from metro.evaluation.baselines import mean_poses
    from metro.evaluation.evaluate import evaluate as run
    from metro.evaluation.figures import write_figures
    from metro.evaluation.summary import table
    from metro.export.load import body_config, body_of, open_bundle
    from metro.model.device import device_of
    from metro.model.views import TTA

    place, dataset = device_of(device), ShardDataset(data)
    if limit is not None:
        dataset = dataset.first(limit)
    bundle = open_bundle(model)
    body_model = BodyModel(body_of(bundle.meta, body), variants=partial(load_variant, body_config(bundle.meta, body)))
    baseline = None
    if train:
        baseline = mean_poses([ShardDataset(folder) for folder in train], body_model)
    elif np.any(dataset.labels["has_mesh"]):
        baseline = mean_poses([dataset], body_model, origin="the benchmark's own labels")
    config = EvaluateConfig(
        batch_size=batch_size, processes=processes, bootstrap=bootstrap, overlays=cases, views=TTA[tta]
    )
    about = {"model": model, **bundle.meta["origin"]}
    with tqdm(total=len(dataset), desc="evaluate", unit="img", disable=not sys.stderr.isatty()) as bar:
        result = run(
            bundle.model,
            dataset,
            body_model,
            protocol,
            config,
            baseline,
            place,
            benchmark=data.name,
            about=about,
            progress=lambda done, total: bar.update(done - bar.n),
        )
    result.write(out)
    write_figures(result, bundle.model, dataset, body_model, out, place)
    return f"{table(result.summary)}\nwritten to {out}"


def evaluate_photos(
    labels: Path,
    /,
    *,
    model: Word = "open",
    images: Place | None = None,
    out: ToFolder = Path("evaluation"),
    detector: Word | None = None,
    passes: Annotated[int | None, Parameter(validator=Between(1, 10))] = None,
    tta: Tta = "none",
    body: Place | None = None,
    batch_size: Batch = 64,
    bootstrap: Annotated[int, Parameter(validator=Between(1, 100_000))] = 1000,
    cases: Annotated[int, Parameter(validator=Between(1, 100))] = 4,
    limit: Annotated[int, Parameter(validator=Between(1, 10**9))] | None = None,
    device: Word | None = None,
) -> str:
    """Evaluate a model on photographs by the joints that people marked in them: tables, intervals and figures.

    Parameters
    ----------
    labels
        JSON file with boxes and 2D joints, as COCO's person_keypoints_val2017.json.
    model
        Checkpoint or bundle folder, `open` or `open-hand` for those that ship, or an MLflow models:/ URI.
    images
        Folder of the photographs; none: that of their labels.
    out
        Folder for metrics.json, result.json, samples.npz and the figures.
    detector
        Who finds the people, `blazepose` or `torchvision`; joints of people it misses are wrong. None: the annotated
        boxes are given.
    passes
        How often the network looks at each person, from the second time on at the box around its mesh. None: as
        `metro predict`.
    tta
        Test-time augmentation, as `metro evaluate`.
    body
        Licensed body model file, for `tta` with models that were trained on one.
    batch_size
        People per forward pass.
    bootstrap
        Resamples of the confidence intervals.
    cases
        Best, median and worst people drawn, of each.
    limit
        Evaluate the first people only.
    device
        Where PyTorch runs, e.g. `cuda`; none: ONNX Runtime on the CPU if the model has an ONNX file.
    """
    import sys

    from tqdm import tqdm

    import metro
    from metro.detect import detector as open_detector
    from metro.evaluation.photo_figures import write_cases
    from metro.evaluation.photo_labels import read_labels
    from metro.evaluation.photos import judge, shown

    people, images = read_labels(labels, limit), images or labels.parent
    finder = None if detector is None else open_detector(detector)
    if detector is not None and finder is None:
        raise MetroError("--detector none: leave it out, and the annotated boxes are given")
    predictor = metro.load(model, device, detector="none", tta=tta, body=body)
    predictor.passes = passes or predictor.passes
    about = {
        "model": model,
        "passes": predictor.passes,
        "boxes": detector or "annotated",
        **({} if predictor.views is None else {"views": str(predictor.views)}),
        **predictor.network.meta["origin"],
    }
    with tqdm(total=len(people), desc="evaluate", unit="person", disable=not sys.stderr.isatty()) as bar:
        result = judge(
            predictor,
            people,
            images,
            finder,
            batch_size=batch_size,
            resamples=bootstrap,
            cases=cases,
            benchmark=labels.stem,
            about=about,
            progress=lambda done, total: bar.update(done - bar.n),
        )
    result.write(out)
    write_cases(result, predictor, images, out)
    return f"{shown(result.summary)}\nwritten to {out}"


def compare(
    run_a: str,
    run_b: str,
    /,
    *,
    data: Place | None = None,
    benchmark: Word | None = None,
    protocol: ProtocolName | None = None,
    out: ToFolder = Path("comparison"),
    body: Place | None = None,
    batch_size: Batch = 64,
    bootstrap: Annotated[int, Parameter(validator=Between(100, 100_000))] = 1000,
    cases: Annotated[int, Parameter(validator=Between(1, 100))] = 6,
    device: Word | None = None,
) -> str:
    """Compare two runs person by person: differences with intervals, what moved, and who changed most.

    A run is a checkpoint, bundle or evaluation folder, `open`, an MLflow run or address (models:/…), or a commit. Where
    both have scores of the same people, as evaluate stages keep them, these are compared; otherwise both are evaluated.

    Parameters
    ----------
    run_a
        The run to compare with.
    run_b
        The run that is new: differences are its numbers minus those of the first.
    data
        Dataset folder to evaluate on and take pictures from; default: that of the project's benchmark.
    benchmark
        Which of the project's benchmarks is meant; default: the first one, or the one that a run has scores of.
    protocol
        Definition of the numbers, see `metro protocols`; default: the benchmark's, or `open`.
    out
        Folder for compare.json and compare.html.
    body
        Licensed body model file, for models that were trained on one; a folder with `KIND_GENDER.npz` where people
        of the dataset are posed on the body of their gender.
    batch_size
        Images per forward pass.
    bootstrap
        Resamples of the confidence intervals.
    cases
        People drawn that improved most, and as many that got worse.
    device
        Where to run, e.g. `cuda`; none: a GPU if there is one.
    """
    import json
    import tempfile

    from metro.data.shards import ShardDataset
    from metro.evaluation import compare as comparing
    from metro.evaluation.runs import Benchmark, Judge, find_run, pictures, project, scores
    from metro.files import atomic_file
    from metro.model.device import device_of
    from metro.viz.comparison import write_comparison

    place, ask = device_of(device), project("benchmark")
    with tempfile.TemporaryDirectory() as scratch:
        a, b = (find_run(word, Path(scratch) / side) for side, word in zip("ab", (run_a, run_b), strict=True))
        usual: Benchmark | None = ask(benchmark) if ask and not data else None
        if data:
            usual = Benchmark(benchmark or data.name, data, protocol or "open")
        judge = None
        if usual and (data or usual.data.is_dir()):
            dataset = ShardDataset(usual.data)
            judge = Judge(usual.name, dataset, protocol or usual.protocol, place, batch_size, body)
        results = scores(a, b, judge, benchmark=benchmark, protocol=protocol, here=data is not None)
        keys = judge.keys if judge and judge.saw(results[0]) else None
        compared = comparing.compare(*results, (run_a, run_b), resamples=bootstrap, cases=cases, keys=keys)
        sheets, unseen = pictures(a, b, judge, results[0], compared.summary["cases"], Path(scratch))
        files = [out / "compare.json", out / "compare.html"]
        with atomic_file(files[0]) as temporary:
            temporary.write_text(json.dumps(compared.summary, indent=1, ensure_ascii=False) + "\n")
        sentence = comparing.verdict(compared.summary)
        write_comparison(compared.summary, compared.changes_N, files[1], verdict=sentence, sheets=sheets, unseen=unseen)
    lines = [
        comparing.table(compared.summary),
        f"written to {files[1]}" + (f", without pictures: {unseen}" * bool(unseen)),
    ]
    return "\n".join([*lines, _logged(compared.summary, files)])


def submission(
    root: Path,
    /,
    *,
    model: Word,
    out: ToFile = Path("pred.zip"),
    body: Place | None = None,
    batch_size: Batch = 64,
    device: Word | None = None,
) -> str:
    """Predict FreiHAND's evaluation pictures for its server: `pred.json` in a zip, checked by the scorer's rules.

    Parameters
    ----------
    root
        Raw tree of FreiHAND, with evaluation/rgb; labels are not needed.
    model
        Checkpoint or bundle folder of a hand model on MANO, or an MLflow models:/ URI.
    out
        The zip.
    body
        Licensed body model file.
    batch_size
        Images per forward pass.
    device
        Where to run, e.g. `cuda`; none: a GPU if there is one.
    """
    import sys

    from tqdm import tqdm

    from metro.body.model import BodyModel
    from metro.evaluation import submission as freihand
    from metro.export.load import body_of, open_bundle
    from metro.model.device import device_of

    place, paths, bundle = device_of(device), freihand.pictures(root), open_bundle(model)
    hand = BodyModel(body_of(bundle.meta, body))
    freihand.check_hand(bundle.model, hand)
    with tqdm(total=len(paths), desc="predict", unit="img", disable=not sys.stderr.isatty()) as bar:
        hands = freihand.predict(
            bundle.model, hand, paths, place, batch_size=batch_size, progress=lambda done: bar.update(done - bar.n)
        )
    freihand.write(hands, out)
    return f"{len(paths)} hands written to {out}"


def protocols() -> str:
    """Describe the benchmark protocols: joints, root, ground truth, metrics."""
    import textwrap

    from metro.evaluation import photos
    from metro.evaluation.protocols import METRICS, PROTOCOLS

    told = [(p.name, p.title, p.description, [METRICS[k] for k in p.metrics]) for p in PROTOCOLS.values()]
    told.append((photos.NAME, photos.TITLE, photos.DESCRIPTION, [*photos.METRICS.values()]))
    blocks = []
    for name, title, description, metrics in told:
        text = textwrap.fill(description, 110, initial_indent="  ", subsequent_indent="  ")
        rows = [f"    {metric.label:<24}{metric.meaning}" for metric in metrics]
        blocks.append("\n".join([f"{name}: {title}", text, *rows]))
    return "\n\n".join(blocks)


def _logged(summary: Mapping[str, Any], files: Sequence[Path]) -> str:
    """Have the project keep a comparison among its runs; says where it is, or why it is not kept."""
    from metro.evaluation.compare import headline
    from metro.evaluation.runs import project

    log = project("log")
    if log is None:
        return "not logged: no project is installed that keeps runs"
    a, b = (summary["runs"][side]["name"] for side in ("a", "b"))
    tags = {"compare.a": a, "compare.b": b, "compare.benchmark": summary["benchmark"]}
    try:
        return f"logged as run {log(f'{a} against {b}', tags, headline(summary), files)}"
    except MetroError as err:
        return f"not logged: {err}"
