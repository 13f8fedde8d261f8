"""What ships is what its model card says, on every kind of processor: same numbers, same vertices, smooth meshes."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import numpy as np
import pytest

from metro.config import load_params
from metro.presets import resolve
from metro.shipped import SHIPPED
from metro.sources.prepare import prepare
from metro.training.checkpoint import CARD, load_checkpoint
from tests.processors import PROCESSORS, run_on


class Claim(NamedTuple):
    """Which people the model card speaks of: the first ones of a set."""

    preset: str
    dataset: str
    people: int
    scores: dict[str, str]
    """What the card calls them."""


CLAIMS = {
    "open": Claim("open-people", "synth-val", 100, {"mpjpe": "MPJPE", "pa_mpjpe": "PA-MPJPE", "mpve": "MPVE"}),
    "open-hand": Claim("open-hand", "hand-test", 50, {"joints_aligned": "PA-MPJPE", "vertices_aligned": "PA-MPVE"}),
}

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
name, kind, shards, out = sys.argv[1:]
bundle = open_bundle(name)
dataset, body, levels = ShardDataset(shards), load_body(kind), bundle.levels
protocol = validation_protocol(bundle.model.config.joint_set)
scores = measure(bundle.model, dataset, BodyModel(body), protocol).values
pictures = [dataset.image(i) for i in range(40)]
vertices = np.stack([p.vertices for p in Predictor(TorchNetwork(bundle, "cpu"))(pictures)])
coarse, (first, second) = vertices[:, compose_indices(levels)[-1]], levels[-1].edges.T
rest = body.v_template[compose_indices(levels)[-1]]
def lengths(mesh):
    return np.linalg.norm(mesh[..., first, :] - mesh[..., second, :], axis=-1)
stretch = lengths(coarse) / lengths(rest)
np.save(out, vertices)
found = {name: 1000 * float(np.nanmean(of_people)) for name, of_people in scores.items()}
print(json.dumps(found | {"edges": [float(q) for q in np.quantile(stretch, (0.05, 0.5, 0.95))]}))
"""


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> str:
    """Name of a network that ships."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def found(shipped: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict, np.ndarray]]:
    """What the network gives on each kind of processor: its scores and some people's vertices."""
    claim, folder, results = CLAIMS[shipped], tmp_path_factory.mktemp(shipped), {}
    params = load_params(resolve(claim.preset))
    held_out = params.datasets[claim.dataset]
    some = held_out.model_copy(update={"options": held_out.options.model_copy(update={"count": claim.people})})
    manifest = prepare(claim.dataset, some, params.body, folder / "set", workers=1, progress=False)
    assert manifest["count"] == claim.people
    for processor in PROCESSORS:
        words = (shipped, params.body.kind, str(folder / "set"), str(folder / f"{processor}.npy"))
        scores = json.loads(run_on(processor, JUDGE, *words).splitlines()[-1])
        results[processor] = scores, np.load(folder / f"{processor}.npy")
    return results


def claimed(shipped: str, pattern: str) -> list[float]:
    """Numbers of the model card in the place that a pattern describes, `#` standing for one."""
    text = (load_checkpoint(shipped).folder / CARD).read_text()
    match = re.search(re.escape(pattern).replace(r"\#", r"([\d.]+)"), text)
    assert match, f"the model card does not say {pattern!r}"
    return [float(number) for number in match.groups()]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_errors_are_those_of_the_model_card(shipped, found, processor):
    scores, _ = found[processor]
    names = CLAIMS[shipped].scores
    claims = claimed(shipped, ", ".join(f"{called} # mm" for called in names.values()))
    assert [scores[name] for name in names] == pytest.approx(claims, rel=0.02)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_meshes_are_as_smooth_as_the_model_card_says(shipped, found, processor):
    scores, _ = found[processor]
    assert scores["edges"] == pytest.approx(claimed(shipped, "# (5 %), # (median) and # (95 %)"), rel=0.02)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_vertices_are_the_same_to_a_tenth_of_a_millimetre(found, processor):
    reference = found["HASWELL"][1]
    np.testing.assert_allclose(found[processor][1], reference, rtol=0, atol=1e-4)
