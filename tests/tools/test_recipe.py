"""docs/recipe.md says what the presets set."""

from __future__ import annotations

import pytest

from tools.recipe import RECIPE, ROW, filled


def test_the_column_of_the_preset_is_up_to_date() -> None:
    text = RECIPE.read_text()
    assert filled(text) == text, "run: python -m tools.recipe"
    assert len(ROW.findall(text)) == sum(line.startswith("| `") for line in text.splitlines()) > 20


@pytest.mark.parametrize(
    ("names", "values"),
    [
        ("`train.steps` × `batch_size`", "150 × 32"),
        ("`model.blocks[].ffn`", "128, 128, 64"),
        ("`train.mixture`", "none"),
        ("`train.augment.integer_2d`", "false"),
        ("`train.optimizer`, `lr`, `weight_decay`", "`adamw`, 0.0002, 0.01"),
    ],
)
def test_a_row_is_filled_with_what_the_preset_sets(names: str, values: str) -> None:
    assert filled(f"| {names} | official | 300 × 32 |") == f"| {names} | official | {values} |"
