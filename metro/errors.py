"""The one exception that reaches a user: what went wrong, where, and how to mend it, in one line."""


class MetroError(Exception):
    """A problem the user can mend. The command line prints its message alone and exits with 2.

    Whatever names and contents of files are quoted in it, the message is one line of characters that can be shown.
    """

    def __init__(self, message: str) -> None:
        super().__init__(
            "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(message.split()))
        )
