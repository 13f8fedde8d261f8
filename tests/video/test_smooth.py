"""The one-euro filter against the paper's algorithm, number by number, and what it does to people."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from metro.video import smooth
from metro.video.people import Placed, Smoother
from metro.video.smooth import one_euro


def literal(values: list[float], rate: float, mincutoff: float, beta: float, dcutoff: float) -> list[float]:
    """Algorithm 1 of the paper for a single number."""

    def alpha(cutoff: float) -> float:
        tau = 1.0 / (2 * math.pi * cutoff)
        te = 1.0 / rate
        return 1.0 / (1.0 + tau / te)

    xhat, dxhat, filtered = values[0], 0.0, [values[0]]
    for x in values[1:]:
        dx = (x - xhat) * rate
        dxhat = alpha(dcutoff) * dx + (1 - alpha(dcutoff)) * dxhat
        share = alpha(mincutoff + beta * abs(dxhat))
        xhat = share * x + (1 - share) * xhat
        filtered.append(xhat)
    return filtered


def test_a_single_number_as_in_the_paper() -> None:
    values = np.random.default_rng(0).normal(0, 1, 40).cumsum().tolist()
    expected = literal(values, 30, smooth.LEAST_CUTOFF_HZ, smooth.PER_SPEED, smooth.SPEED_CUTOFF_HZ)
    value, speed, found = np.array([values[0]]), np.zeros(1), [values[0]]
    for x in values[1:]:
        value, speed = one_euro(np.array([x]), value, speed, 1 / 30)
        found.append(float(value[0]))
    assert found == pytest.approx(expected, abs=1e-12)


def test_it_does_not_depend_on_axes_or_units() -> None:
    g = np.random.default_rng(1)
    new, old, speed = g.normal(size=(3, 7, 3))
    turn = np.linalg.qr(g.normal(size=(3, 3)))[0]
    value, after = one_euro(new, old, speed, 0.04)
    turned, turned_after = one_euro(new @ turn, old @ turn, speed @ turn, 0.04)
    assert turned == pytest.approx(value @ turn)
    assert turned_after == pytest.approx(after @ turn)
    pixels, _ = one_euro(300 * new, 300 * old, 300 * speed, 0.04, metre=300)
    assert pixels == pytest.approx(300 * value)


def person(shake: np.ndarray, x: float = 200.0) -> Placed:
    return Placed(0, np.array([0, 0, 50, 100, 0.5]), False, shake[:4], shake[4:], 100.0, np.array([x, 150.0]))


def test_people_at_rest_shake_less_and_people_on_the_move_do_not_lag() -> None:
    g = np.random.default_rng(2)
    smoother = Smoother(25, 25)
    raw = [person(g.normal(0, 0.02, (6, 3)), 200 + 20 * frame) for frame in range(100)]  # 5 m/s
    found = [smoother(frame, [p])[0] for frame, p in enumerate(raw)]
    before, after = (np.std([p.vertices for p in people[20:]]) for people in (raw, found))
    assert after < before / 2
    lag = [a.root[0] - b.root[0] for a, b in zip(raw[20:], found[20:], strict=True)]
    assert 0 <= min(lag) <= max(lag) < 15
    assert found[50].box is raw[50].box


def test_who_was_lost_for_long_begins_anew() -> None:
    smoother = Smoother(25, 5)
    smoother(0, [person(np.zeros((6, 3)))])
    near = smoother(1, [person(np.ones((6, 3)))])[0]
    assert near.joints.max() < 1
    assert (smoother(7, [person(np.ones((6, 3)))])[0].joints == 1).all()


def test_a_smoother_goes_on_from_its_state() -> None:
    g = np.random.default_rng(3)
    whole, first, second = (Smoother(25, 5) for _ in range(3))
    for frame in range(20):
        people = [replace(person(g.normal(0, 1, (6, 3))), person=k) for k in range(3) if (frame + k) % 4]
        if frame == 10:
            second.restore(first.state())
        expected = whole(frame, people)
        found = (first if frame < 10 else second)(frame, people)
        for a, b in zip(expected, found, strict=True):
            assert (a.vertices == b.vertices).all()
            assert a.size == b.size
    assert Smoother(25, 5).state() == {}
