"""Open a trained network by path, or by an address that a plug-in resolves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metro.errors import MetroError
from metro.export.folder import META, ONNX, read_folder
from metro.export.networks import Network, OnnxNetwork, TorchNetwork
from metro.export.predictor import Predictor, knows_hands
from metro.files import nearest
from metro.shipped import SHIPPED, bundle_folder
from metro.words import Tta

if TYPE_CHECKING:
    import numpy as np
    import torch

    from metro.body.arrays import BodyData
    from metro.config import BodyConfig
    from metro.detect import Detector
    from metro.export.bundle import Bundle
    from metro.model.views import Views

RESOLVERS = "metro.resolvers"
"""Entry-point group of functions ``resolve(address: str) -> Path``, named by the scheme of the addresses they take."""
PASSES = 2
"""How often a body is looked at: the first mesh tells where the whole of it is, and boxes seldom do."""


def open_network(source: Path | str, device: torch.device | str | None = None) -> Network:
    """The network of whatever `open_bundle` takes, for prediction.

    Without a device a bundle that has an ONNX file runs in ONNX Runtime, on the CPU, and torch is not imported.

    Raises
    ------
    MetroError
        As `open_bundle`, or the device cannot be used.
    """
    place = _place(source)
    folder = bundle_folder(place)
    if device is None and (folder / META).is_file() and (found := read_folder(folder)).holds(ONNX):
        return OnnxNetwork(found)
    return TorchNetwork(open_bundle(place), device)


def predictor_of(network: Network, detector: Detector | None = None, views: Views | None = None) -> Predictor:
    """A predictor that looks as often as suits what the network predicts."""
    return Predictor(network, detector, passes=1 if knows_hands(network) else PASSES, views=views)


def network_views(network: Network, name: Tta, path: Path | None = None) -> Views | None:
    """The views that a name of `metro.model.views.TTA` stands for; `path` is as in `body_of`.

    Raises
    ------
    MetroError
        No views have that name, the body is missing, or has no mirror image.
    """
    from metro.model.views import TTA, mirror_vertices, views_of

    if name not in TTA:
        raise MetroError(f"tta: no views {name!r}; {nearest(name, [*TTA])}")

    def mirror() -> np.ndarray:
        body = body_of(network.meta, path)
        return mirror_vertices(body.v_template, body.faces)

    return views_of(TTA[name], network.meta["model"]["joint_set"], mirror)


def open_predictor(model: str, device: str | None, hands: bool, left_hand: bool) -> Predictor:
    """What `metro predict` predicts with, as yet without a detector and views.

    Raises
    ------
    MetroError
        As `open_network`, or hands are asked for and the network predicts bodies.
    """
    predictor = predictor_of(open_network(model, device))
    predictor.check_hand(left_hand)
    if hands and not knows_hands(predictor.network):
        raise MetroError(f"--hands: model {model} predicts bodies; give --model a hand model")
    return predictor


def open_bundle(source: Path | str) -> Bundle:
    """Bundle of a bundle or checkpoint folder, of one that ships (`metro.shipped`), or of a ``SCHEME:/…`` address.

    Raises
    ------
    MetroError
        Nothing usable is there, or no installed package resolves the address.
    """
    from metro.export.bundle import from_checkpoint, load_bundle
    from metro.training.checkpoint import META as CHECKPOINT_META

    place = _place(source)
    folder = Path(place)
    if place in SHIPPED:
        return from_checkpoint(place)
    if (folder / META).is_file():
        return load_bundle(folder)
    if (folder / CHECKPOINT_META).is_file():
        return from_checkpoint(folder)
    if not folder.exists():
        raise MetroError(
            f"{folder}: no such folder; give a checkpoint or bundle folder, {' or '.join(SHIPPED)}, or a models:/ URI"
        )
    raise MetroError(f"{folder}: neither a bundle ({META}) nor a checkpoint ({CHECKPOINT_META})")


def body_config(meta: Mapping[str, Any], path: Path | None = None) -> BodyConfig:
    """The settings of the body that a network's record says it was trained on; `path` is that of a licensed one."""
    from metro.config import BodyConfig

    record = meta["body"]
    return BodyConfig(kind=record["kind"], gender=record["gender"], path=path)


def body_of(meta: Mapping[str, Any], path: Path | None = None) -> BodyData:
    """The body that a network was trained on.

    Raises
    ------
    MetroError
        It is a licensed one and `path` is not given, or is not the version that the network was trained on.
    """
    from metro.body.arrays import OPEN_KINDS, digest
    from metro.body.load import load_body

    record = meta["body"]
    if record["kind"] not in OPEN_KINDS and path is None:
        raise MetroError(f"the model was trained on the licensed {record['kind']} body; give its file with --body")
    body = load_body(body_config(meta, path))
    if digest(body) != record["digest"]:
        raise MetroError(f"{path or record['kind']}: not the version of the body model that the model was trained on")
    return body


def _place(source: Path | str) -> Path | str:
    """Where a network is: the name of one that ships, or a folder. For an address, the folder it leads to or the first
    network within."""
    address = re.match(r"(\w{2,}):/", str(source))
    if not address:
        return str(source) if str(source) in SHIPPED else Path(source)
    from metro.training.checkpoint import META as CHECKPOINT_META

    resolvers = metadata.entry_points(group=RESOLVERS, name=address[1])
    if not resolvers:
        raise MetroError(f"{source}: nothing installed opens {address[1]}:/ addresses; give a folder")
    folder: Path = next(iter(resolvers)).load()(str(source))
    found = [path.parent for name in (META, CHECKPOINT_META) for path in sorted(folder.rglob(name))]
    return found[0] if found else folder
