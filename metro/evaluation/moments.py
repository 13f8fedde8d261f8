"""Mean and variance over samples that come one after the other, in memory that does not grow with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z95 = 1.959964
"""Standard errors on either side of a mean that hold it in 95 of 100 samplings, were it normally distributed."""


class Moments:
    """Mean and variance of arrays of one shape, in float64 (Chan, Golub and LeVeque's update, 1979).

    What it gives does not depend on how the samples are split into batches, up to the rounding of float64.

    Parameters
    ----------
    shape
        Of one sample.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(shape)
        self._squares: NDArray[np.float64] = np.zeros(shape)

    def add(self, samples: ArrayLike) -> None:
        """Take samples (B, …)."""
        new = np.asarray(samples, np.float64)
        if not len(new):
            return
        mean, total = new.mean(0), self.count + len(new)
        step = mean - self.mean
        self._squares += np.square(new - mean).sum(0) + np.square(step) * (self.count * len(new) / total)
        self.mean = self.mean + step * (len(new) / total)
        self.count = total

    @property
    def variance(self) -> NDArray[np.float64]:
        """Of one sample; nan for less than two."""
        return self._squares / (self.count - 1) if self.count > 1 else np.full(self.mean.shape, np.nan)

    @property
    def interval(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ends of the normal 95 % interval of the mean; nan for less than two samples."""
        reach = Z95 * np.sqrt(self.variance / max(self.count, 1))
        return self.mean - reach, self.mean + reach
