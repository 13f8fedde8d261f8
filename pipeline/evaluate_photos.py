"""Stage `evaluate-photos@NAME`: the trained model on photographs whose 2D joints are annotated.

A stage of its own, beside `evaluate`: photographs are no dataset, and DVC has no input of some items alone. What it
writes lies with the other benchmarks, and its numbers join the run of the training that made the model.
"""

from __future__ import annotations

from functools import partial

from metro.config import Params
from metro.files import sha256_of
from pipeline import stage, tracking
from pipeline.network import load_network
from pipeline.paths import BODY, EVALUATE, MODEL, SAMPLING


def main(params: Params, name: str) -> None:
    """Measure, draw and tabulate."""
    from metro.body.arrays import read_npz
    from metro.evaluation.photo_figures import write_cases
    from metro.evaluation.photo_labels import read_labels
    from metro.evaluation.photos import judge
    from metro.evaluation.summary import headline
    from metro.export.bundle import bundle_of
    from metro.export.load import predictor_of
    from metro.export.networks import TorchNetwork
    from metro.mesh.sampling import load_sampling
    from metro.model.views import mirror_vertices, views_of
    from metro.training.checkpoint import load_checkpoint

    photos, settings = params.photos[name], params.evaluate
    people = read_labels(photos.labels)
    body = read_npz(BODY)
    bundle = bundle_of(load_network(MODEL), body, load_sampling(SAMPLING))
    mirror = partial(mirror_vertices, body.v_template, body.faces)
    views = views_of(settings.views, bundle.model.config.joint_set, mirror)
    predictor = predictor_of(TorchNetwork(bundle), views=views)
    about = {"checkpoint": str(MODEL), "step": load_checkpoint(MODEL).step, "passes": predictor.passes}
    with tracking.joined(params, "train") as run:
        run.dataset(name, sha256_of(photos.labels), photos.labels, "evaluation")
        result = judge(
            predictor,
            people,
            photos.images,
            batch_size=settings.batch_size,
            resamples=settings.bootstrap,
            cases=settings.overlays,
            benchmark=name,
            about=about if views is None else {**about, "views": str(views)},
        )
        numbers = headline(result.summary)
        run.log({f"{name}/{key}": value for key, value in numbers.items()})
        with stage.publish(EVALUATE / name) as folder:
            result.write(folder)
            write_cases(result, predictor, photos.images, folder)
            for path in sorted([folder / "result.json", folder / "samples.npz", *folder.glob("*.png")]):
                run.artifact(path, f"evaluate/{name}")
        stage.write_metrics(f"evaluate/{name}", numbers)
    print(f"{name}: " + "  ".join(f"{key} {value:g}" for key, value in numbers.items()))


if __name__ == "__main__":
    stage.run(main)
