"""The one exception that reaches a user: what went wrong, where, and how to mend it, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class MetroError(Exception):
    """A problem the user can mend. The command line prints its message alone and exits with 2.

    Whatever names and contents of files are quoted in it, the message is one line of characters that can be shown.
    """

    def __init__(self, message: str) -> None:
        super().__init__(
            "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(message.split()))
        )


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Around work on one of many: an error from inside begins with the name of that one."""
    try:
        yield
    except MetroError as err:
        raise MetroError(f"{what}: {err}") from None
