"""Outcomes: what a model's classes mean for the answers of stage 1.

A binary task separates one positive class from the rest, a multiclass task names the class. All
decisions, truths and errors are numbers of outcomes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from components.shared.contracts.errors import DataError
from components.shared.contracts.listing import shown

BINARY, MULTICLASS = "binary", "multiclass"
TASKS = (BINARY, MULTICLASS)
DEFER = "defer"  # the answer that names no outcome, and therefore the name of no class
# In a document: memory and time of some readers grow with the square of their number.
MOST_CLASSES = 10_000
# Of an option, in messages.
NEEDS_BINARY = f"needs task={BINARY}: of several classes none is the positive one"

# The class that street photographs are searched for; `auto` prefers it where it exists.
_SOUGHT = "Roadwork"


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of a model with these classes.

    class_names: in the order of the logits. positive: index of the positive class of a binary task;
    None for a multiclass task, where every class is an outcome.
    """

    class_names: tuple[str, ...]
    positive: int | None

    @classmethod
    def of(
        cls, class_names: Sequence[str], task: str | None = None, positive_class: str | None = None
    ) -> "Outcomes":
        """Resolve what is left automatic.

        Args:
            class_names: in the order of the logits, at least two.
            task: "binary" or "multiclass"; None: binary for two classes, multiclass for more.
            positive_class: of a binary task; None: "Roadwork" where it is a class, else the second
                of two classes.

        Raises:
            DataError: `positive_class` is none of the classes, or a binary task of more than two
                classes does not name one.
        """
        names = tuple(class_names)
        if positive_class is not None and positive_class not in names:
            raise DataError(
                f"positive_class={positive_class!r} is not in {list(names)}; name one of these"
                " classes, or leave it auto"
            )

        if (task or (BINARY if len(names) == 2 else MULTICLASS)) == MULTICLASS:
            return cls(names, None)

        if positive_class is None and _SOUGHT in names:
            positive_class = _SOUGHT
        if positive_class is None and len(names) > 2:
            raise DataError(
                f"task={BINARY!r} with the {len(names)} classes {list(names)} needs a"
                f" positive_class; name one of them, or use task={MULTICLASS}"
            )

        return cls(names, 1 if positive_class is None else names.index(positive_class))

    @property
    def task(self) -> str:
        """One of `TASKS`."""
        return MULTICLASS if self.positive is None else BINARY

    @property
    def positive_class(self) -> str | None:
        """Name of the positive class; None for a multiclass task."""
        return None if self.positive is None else self.class_names[self.positive]

    @property
    def positive_index(self) -> int:
        """Index of the positive class among the logits.

        Raises:
            DataError: the task is multiclass.
        """
        if self.positive is None:
            raise DataError(f"task={MULTICLASS!r} has no positive class; use task={BINARY}")
        return self.positive

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outcomes.

        The rest and the positive class of a binary task; all classes of a multiclass task. The rest
        is called by its name where it is one class.
        """
        if self.positive is None:
            return self.class_names
        positive = self.class_names[self.positive]
        if len(self.class_names) > 2:
            return (f"not {positive}", positive)
        return (self.class_names[1 - self.positive], positive)


def class_names_problem(names: object, least: int = 2) -> str:
    """Return what is wrong with a document's class names, or an empty text.

    They are a list of at least `least` and at most 10,000 distinct, not empty names.
    """
    if (
        isinstance(names, list | tuple)
        and least <= len(names) <= MOST_CLASSES
        and all(isinstance(name, str) and name for name in names)
        and len(set(names)) == len(names)
    ):
        return ""
    wanted = "two distinct names" if least == 2 else "one name"
    return f"class_names={shown(names)} must be a list of at least {wanted}"
