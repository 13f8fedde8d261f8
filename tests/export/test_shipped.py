"""What ships is what its model card says, on every kind of processor: same numbers, same vertices, smooth meshes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from metro.config import load_params
from metro.presets import resolve
from metro.sources.prepare import prepare
from metro.training.checkpoint import CARD, open_checkpoint
from tests.processors import PROCESSORS, run_on

PEOPLE = 100
"""The first of the validation set, which is what the card speaks of."""

JUDGE = """
import json, sys
import numpy as np
import torch
from metro.body.load import load_body
from metro.body.model import BodyModel
from metro.data.shards import ShardDataset
from metro.evaluation.measure import measure
from metro.evaluation.protocols import validation_protocol
from metro.export.load import open_bundle
from metro.export.networks import TorchNetwork
from metro.export.predictor import Predictor
from metro.mesh.sampling import compose_indices

torch.set_num_threads(1)
shards, out = sys.argv[1:]
bundle = open_bundle("open")
dataset, body, levels = ShardDataset(shards), load_body("open"), bundle.levels
scores = measure(bundle.model, dataset, BodyModel(body), validation_protocol("J14")).values
pictures = [dataset.image(i) for i in range(40)]
vertices = np.stack([p.vertices for p in Predictor(TorchNetwork(bundle, "cpu"))(pictures)])
coarse, (first, second) = vertices[:, compose_indices(levels)[-1]], levels[-1].edges.T
rest = body.v_template[compose_indices(levels)[-1]]
def lengths(mesh):
    return np.linalg.norm(mesh[..., first, :] - mesh[..., second, :], axis=-1)
stretch = lengths(coarse) / lengths(rest)
np.save(out, vertices)
found = {name: 1000 * float(np.nanmean(scores[name])) for name in ("mpjpe", "pa_mpjpe", "mpve")}
print(json.dumps(found | {"edges": [float(q) for q in np.quantile(stretch, (0.05, 0.5, 0.95))]}))
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first people of the validation set of the preset that made the checkpoint."""
    params = load_params(resolve("open-people"))
    folder, held_out = tmp_path_factory.mktemp("validation"), params.datasets["synth-val"]
    some = held_out.model_copy(update={"options": held_out.options.model_copy(update={"count": PEOPLE})})
    manifest = prepare("synth-val", some, params.body, folder, workers=1, progress=False)
    assert manifest["count"] == PEOPLE
    return folder


@pytest.fixture(scope="module")
def found(people: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict, np.ndarray]]:
    """What the shipped checkpoint gives on each kind of processor: its scores and some people's vertices."""
    folder, results = tmp_path_factory.mktemp("vertices"), {}
    for processor in PROCESSORS:
        scores = json.loads(run_on(processor, JUDGE, str(people), str(folder / f"{processor}.npy")).splitlines()[-1])
        results[processor] = scores, np.load(folder / f"{processor}.npy")
    return results


def claimed(pattern: str) -> list[float]:
    """Numbers of the model card in the place that a pattern describes, `#` standing for one."""
    text = (open_checkpoint() / CARD).read_text()
    match = re.search(re.escape(pattern).replace(r"\#", r"([\d.]+)"), text)
    assert match, f"the model card does not say {pattern!r}"
    return [float(number) for number in match.groups()]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_errors_are_those_of_the_model_card(found, processor):
    scores, _ = found[processor]
    claims = claimed("MPJPE # mm, PA-MPJPE # mm, MPVE # mm")
    assert [scores["mpjpe"], scores["pa_mpjpe"], scores["mpve"]] == pytest.approx(claims, rel=0.02)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_meshes_are_as_smooth_as_the_model_card_says(found, processor):
    scores, _ = found[processor]
    assert scores["edges"] == pytest.approx(claimed("# (5 %), # (median) and # (95 %)"), rel=0.02)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_vertices_are_the_same_to_a_tenth_of_a_millimetre(found, processor):
    reference = found["HASWELL"][1]
    np.testing.assert_allclose(found[processor][1], reference, rtol=0, atol=1e-4)
