import pytest

from metro.config import TrainConfig
from metro.training.schedule import learning_rate


def test_step_schedule_divides_by_ten_at_half_of_the_run():
    config = TrainConfig(schedule="step", steps=5, lr=1e-4)
    # Official code, E = 5: the rate drops at epoch 3, since 2 < 5 / 2 <= 3.
    assert [learning_rate(s, config) for s in range(5)] == pytest.approx([1e-4, 1e-4, 1e-4, 1e-5, 1e-5])


def test_cosine_starts_at_the_peak_and_ends_near_a_hundredth():
    config = TrainConfig(schedule="cosine", steps=1000, lr=2.0)
    assert learning_rate(0, config) == pytest.approx(2.0)
    assert learning_rate(500, config) == pytest.approx(1.01)
    assert learning_rate(999, config) == pytest.approx(0.02, rel=1e-3)


def test_warm_up_rises_linearly():
    config = TrainConfig(schedule="constant", steps=10, lr=1.0, warmup_steps=4)
    assert [learning_rate(s, config) for s in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
