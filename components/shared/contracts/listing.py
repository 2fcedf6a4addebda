"""Lists in messages: the first entries and the number of the others."""

from collections.abc import Iterable


def first_of(items: Iterable[object], *, most: int = 20, separator: str = ", ") -> str:
    """Return the first `most` items as text, and how many more there are.

    No message lists every file, row or id: one about all files of a data set would be a line of a
    hundred kilobytes.
    """
    listed = [str(item) for item in items]
    n_more = len(listed) - most
    return separator.join(listed[:most]) + (f" and {n_more} more" if n_more > 0 else "")
