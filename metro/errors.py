"""The one exception that reaches a user: what went wrong, where, and how to mend it, in one line."""


class MetroError(Exception):
    """A problem the user can mend. The command line prints its message alone and exits with 2."""
