"""Random streams: equal keys agree, different keys do not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from metro.random import stream


def test_a_key_gives_the_same_numbers_always():
    assert np.array_equal(stream(88, 3, 7).random(5), stream(88, np.int64(3), 7).random(5))
    assert stream(88, 3, 7).integers(2**32, size=3).tolist() == [4252370363, 1148181471, 866714441]


def test_keys_that_a_bare_seed_sequence_confuses_differ():
    keys = [(), (0,), (1,), (1, 2), (2, 1), (1, 2, 0), (1, 2, 0, 0), (1 + 2**33,), (2**33, 1), (1, 0, 2), (12,)]
    firsts = [stream(*key).random() for key in keys]
    assert len(set(firsts)) == len(keys)


def test_streams_of_neighbouring_keys_are_uniform_and_independent():
    values = np.array(
        [stream(0, epoch, sample).random(2) for epoch, sample in itertools.product(range(30), range(100))]
    )
    counts = np.histogram(values, 50, (0, 1))[0]
    chi_square = ((counts - 120) ** 2 / 120).sum()
    assert 20 < chi_square < 90  # 49 degrees of freedom: 0.01 % in either tail
    assert abs(np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]) < 0.06
    assert abs(np.corrcoef(values[:, 0], values[:, 1])[0, 1]) < 0.06


@pytest.mark.parametrize("part", [-1, 2**64])
def test_parts_out_of_range_are_refused(part):
    with pytest.raises(OverflowError):
        stream(88, part)
