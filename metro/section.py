"""What sections of the parameters have in common, and the kinds of numbers in them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

# Kinds of numbers. Every number has bounds: beyond them lies a slip of the hand or what no machine could do.
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e9)]
Degrees = Annotated[float, Field(ge=-360, le=360)]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]  # of `metro.random.stream`
Steps = Annotated[int, Field(ge=1, le=10**9)]
Batch = Annotated[int, Field(ge=1, le=65536)]
Width = Annotated[int, Field(ge=1, le=65536)]


class Section(BaseModel):
    """Common rules of all sections: immutable, no unknown keys, attribute docstrings become descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        """Let the word none stand for a value left out, and text for a number, which YAML takes 1e-4 for; but let no
        switch stand for a number, nor a number for a switch."""
        kind = cls.model_fields[info.field_name or ""].annotation
        kinds = get_args(kind) or (kind,)
        if isinstance(value, str):
            if value.lower() == "none" and NoneType in kinds:
                return None
            if not value or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
                raise ValueError("is empty or holds control characters")
        if bool in kinds:
            if not isinstance(value, bool):
                raise ValueError("give true or false")
        elif Any not in kinds and any(isinstance(part, bool) for part in _parts(value, get_origin(kind))):
            raise ValueError("true and false are for switches")
        return value


def _parts(value: Any, kind: Any) -> Iterable[Any]:
    if isinstance(value, list | tuple):
        return value
    return value.values() if isinstance(value, dict) and kind is dict else [value]
