"""The prepared dataset of `tests/data`, for the commands that look at one."""

from tests.data.conftest import made, prepare

__all__ = ["made", "prepare"]
