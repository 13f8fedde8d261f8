"""Where people and hands are in a picture."""

from __future__ import annotations

from metro.detect.detection import Detection, Detector
from metro.errors import MetroError
from metro.files import nearest

__all__ = ["DETECTORS", "Detection", "Detector", "detector"]

DETECTORS = ("blazepose", "torchvision", "none")


def detector(
    name: str, *, hands: bool = False, levels: int = 2, least: float | None = None, most: int | None = None
) -> Detector | None:
    """Open a detector.

    Parameters
    ----------
    name
        `blazepose` ships and needs neither PyTorch nor a network; `torchvision` is its Keypoint R-CNN, whose weights
        are downloaded once; `none`: there is none.
    hands
        Find hands instead of people, which `blazepose` can.
    levels
        How small the parts of the picture are that `blazepose` looks at: 0 is the whole picture alone, fast, for people
        who fill it; each more halves them (`metro.detect.finder`).
    least
        Leave out what is less sure, from 0 to 1; None: what suits the detector.
    most
        Keep so many, the surest; None: all.

    Raises
    ------
    MetroError
        There is no such detector, it cannot be opened, or does not know hands.
    """
    bounds = {"most": most} if least is None else {"most": most, "least": least}
    if name == "none":
        return None
    if name == "blazepose":
        from metro.detect.hands import HandDetector
        from metro.detect.people import PeopleDetector

        return (HandDetector if hands else PeopleDetector)(levels=levels, **bounds)
    if name == "torchvision":
        if hands:
            raise MetroError("detector torchvision: finds people and no hands; take blazepose")
        from metro.detect.rcnn import RcnnDetector

        return RcnnDetector(**bounds)
    raise MetroError(f"detector {name}: there is no such one, {nearest(name, DETECTORS)}")
