"""`metro fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from metro.cli.options import Between, Place, ToFolder, Word, Writable
from metro.errors import MetroError

if TYPE_CHECKING:
    from metro.config import BodyConfig, FitConfig


def fit(
    folder: Path | None = None,
    /,
    *,
    keypoints: Place | None = None,
    image: Place | None = None,
    focal: Annotated[float | None, Parameter(allow_leading_hyphen=True)] = None,
    start: Word | None = None,
    body: Place | None = None,
    out: ToFolder | None = None,
    params: Place | None = None,
    scheduler: Word | None = None,
    workers: Annotated[int, Parameter(validator=Between(1, 1024))] | None = None,
    device: Word = "cpu",
) -> dict[str, Any]:
    """Fit the body model to joints: of a prepared dataset, or of the people of an image.

    For a dataset, pseudo-meshes are written beside it. For an image (--keypoints, --image), an overlay of all people is
    written, and OBJ, GLB, JSON and npz (pose, shape, position) of each.

    Parameters
    ----------
    folder
        Dataset folder with shards and manifest.json. It is not changed.
    keypoints
        JSON file with 2D joints of people: OpenPose's (25 or 18 joints), or COCO's results or labels (17).
    image
        The image that they are of.
    focal
        Focal length of its camera in pixels, which places people in depth; none: the image's diagonal.
    start
        Checkpoint or bundle folder, or `open`: fits to 2D joints start from the poses that this network sees.
    body
        Licensed body model file; left out, the `body` section of --params tells the body, the open one by default.
    out
        Folder for the results: fits, one file per shard, and summary.json, in FOLDER-fits if left out; those of an
        image in `fits`.
    params
        Params file with `body` and `fit` sections; the defaults if left out.
    scheduler
        Address of a Dask scheduler; without it the work is done by processes of this machine.
    workers
        Processes; one per core if left out.
    device
        Where to compute: cpu, cuda, ...
    """
    if (folder is None) == (keypoints is None):
        raise MetroError("give either the FOLDER of a prepared dataset, or --keypoints FILE.json and --image")
    if (keypoints is None) != (image is None):
        raise MetroError("--keypoints FILE.json and --image go together: joints, and the image that they are of")
    from metro.config import Params, load_params

    if keypoints is not None and image is not None:
        if scheduler is not None or workers is not None:
            raise MetroError("--scheduler and --workers are for datasets; an image is fitted in this process")
        settings = load_params(params) if params is not None else Params()
        fitted_body = _body(settings.body, body)
        return _fit_image(keypoints, image, focal, start, fitted_body, settings.fit, out or Path("fits"), device)
    assert folder is not None
    if focal is not None:
        raise MetroError("--focal is for --image; for people of a dataset whose camera is not known it is fit.focal")
    from metro.fitting.dataset import fit_dataset
    from metro.model.device import device_of

    device_of(device)
    if out is None:
        try:
            out = (Path.cwd() / folder).with_name(f"{(Path.cwd() / folder).name}-fits")
            Writable(folder=True)(Path, out)
        except ValueError as err:
            raise MetroError(f"{folder}-fits: {err} Give --out.") from None
    settings = load_params(params) if params is not None else Params()
    begin = None
    if start is not None:
        from metro.export.start import StartFrom

        begin = StartFrom(start, None if device == "cpu" else device)
    fitted_body = _body(settings.body, body)
    return fit_dataset(folder, out, fitted_body, settings.fit, scheduler, workers, device=device, start=begin)


def _body(section: BodyConfig, path: Path | None) -> BodyConfig:
    """The settings of the body in a file, or those of the params."""
    if path is None:
        return section
    from metro.body.arrays import OPEN_KINDS
    from metro.body.convert import read_licensed
    from metro.config import BodyConfig

    data = read_licensed(path)
    if data.kind in OPEN_KINDS:
        raise MetroError(f"{path}: holds the {data.kind} body, which ships with metro; leave --body out")
    return BodyConfig.model_validate({"kind": data.kind, "gender": data.gender, "path": path})


def _fit_image(
    keypoints: Path,
    image: Path,
    focal: float | None,
    start: str | None,
    body_config: BodyConfig,
    config: FitConfig,
    out: Path,
    device: str,
) -> dict[str, Any]:
    """Fit the people of an image, write the results and tell who could not be fitted, and why."""
    import numpy as np

    from metro.body.load import load_body
    from metro.export.keypoints import read_keypoints
    from metro.export.predictor import check_focal, read_photo
    from metro.export.refine import LEAST_CONFIDENCE, fit_keypoints, joint_boxes, refine, with_parameters
    from metro.export.results import files_of, suffixes, write_people
    from metro.model.device import device_of

    check_focal(focal)
    device_of(device)
    photo, joints_NJ3 = read_photo(image), read_keypoints(keypoints, image)
    count = len(joints_NJ3)
    if not count:
        raise MetroError(f"{keypoints}: has no people in {image}; is it the file of this image?")
    places = {(out / name).resolve() for name in files_of(image.stem, count, scene=False, npz=True)}
    if lost := [path for path in (keypoints, image) if path.resolve() in places]:
        raise MetroError(f"{lost[0]}: a result would be written over it; choose another --out")
    joint_counts = (joints_NJ3[..., 2] >= LEAST_CONFIDENCE).sum(1)
    kept = np.flatnonzero(joint_counts >= config.min_joints)
    told = {int(k): f"{joint_counts[k]} joints, {config.min_joints} are needed" for k in range(count) if k not in kept}
    body = load_body(body_config)
    if start is None:
        people = fit_keypoints(photo, joints_NJ3[kept], body, focal, config)
    else:
        from metro.export.predictor import Predictor
        from metro.export.start import StartFrom

        begin = StartFrom(start, None if device == "cpu" else device)
        begin.check(body)
        seen = Predictor(begin.network)(photo, joint_boxes(joints_NJ3[kept], photo))
        people = with_parameters(refine(seen, joints_NJ3[kept], body, focal, config, device), body)
    told |= {int(k): person.kept for k, person in zip(kept, people, strict=True) if person.kept}
    # Without a start, who could not be fitted is but a body at rest; with one, what the network sees is left.
    shown = [(k, person) for k, person in zip(kept, people, strict=True) if start is not None or not person.kept]
    if not shown:
        reasons = "; ".join(f"person {k}: {why}" for k, why in sorted(told.items()))
        raise MetroError(f"{keypoints}: nobody in {image} can be fitted ({reasons})")
    out.mkdir(parents=True, exist_ok=True)
    endings = suffixes(count)
    found = [person for _, person in shown]
    write_people(found, [endings[k] for k, _ in shown], photo.pixels, out / image.stem, focal=focal)
    errors = [100 * person.placement.error_2d for person in found if person.placement is not None]
    return {
        "image": str(image),
        "people": count,
        "fitted": len(errors),
        "not_fitted": {f"person {k}": why for k, why in sorted(told.items())},
        "error_2d_percent": [round(error, 2) for error in errors],
        "written": f"{out / image.stem}*",
    }
