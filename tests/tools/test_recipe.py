"""docs/recipe.md says what the presets set."""

from __future__ import annotations

import pytest

from metro.config import BlockConfig, Params, load_params
from metro.presets import resolve
from tools.recipe import RECIPE, ROW, filled


def test_the_column_of_the_preset_is_up_to_date() -> None:
    text = RECIPE.read_text()
    assert filled(text, load_params(resolve("open"))) == text, "run: python -m tools.recipe"
    assert len(ROW.findall(text)) == sum(line.startswith("| `") for line in text.splitlines()) > 20


@pytest.mark.parametrize(
    ("names", "values"),
    [
        ("`train.steps` × `batch_size`", "12,000 × 7"),
        ("`model.blocks[].ffn`", "128, 64"),
        ("`train.mixture`", "none"),
        ("`train.clip`, `ema`", "1, none"),
        ("`train.augment.integer_2d`", "false"),
        ("`train.optimizer`, `lr`, `weight_decay`", "`adam`, 0.0002, 0.01"),
    ],
)
def test_a_row_is_filled_with_what_is_set(names: str, values: str) -> None:
    blocks = [BlockConfig(width=8, out=4, ffn=128), BlockConfig(width=8, out=3, ffn=64)]
    train = {"steps": 12000, "batch_size": 7, "optimizer": "adam", "lr": 2e-4, "weight_decay": 0.01}
    params = Params.model_validate({"train": train, "model": {"blocks": blocks}})
    assert filled(f"| {names} | official | 300 × 32 |", params) == f"| {names} | official | {values} |"
