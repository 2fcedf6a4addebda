"""Documents of the registry, each one JSON object that is created once.

Records are kept for ever, so that every later release reads them: a new field has a default.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["first", "comparison", "by_hand", "rollback"]


@dataclass(frozen=True, kw_only=True)
class SplitLineage:
    """What decides on which side of a split a group falls, the same for all runs of a lineage.

    Attributes:
        name: of the lineage, as the split's option `lineage` or its default says it.
        salt: salt of the lineage's first assignment.
        fractions: split -> fraction, of all four splits.
    """

    name: str
    salt: str
    fractions: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a bundle comes from.

    Attributes:
        lineage: the split that it was trained by; None where it is not known.
        split_table: SHA-256 of the table of all samples that the run has seen (`put_table`):
            sample_id, split, group. Empty where it is not known.
        run: the run that made the bundle, as its pipeline names it.
        git_commit: commit of the code, where it is known.
        code_version: digest of the sources (`contracts.artifacts.code_version`).
        registered_at: UTC, ISO 8601, set by the registry.
    """

    lineage: SplitLineage | None = None
    split_table: str = ""
    run: str = ""
    git_commit: str = ""
    code_version: str = ""
    registered_at: str = ""


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The promoted bundle.

    Attributes:
        digest: content digest.
        previous: content digest of the champion before it; None for the first one.
        decision: number of the decision that promoted it; None in pointers of earlier releases.
        etag: this version of the pointer, by which it is replaced.
    """

    digest: str
    previous: str | None
    decision: int | None = None
    etag: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A claimed comparison of a challenger with the champion on one lineage's VAL_TEST.

    Attributes:
        lineage: name of the lineage.
        number: position among the comparisons of the lineage, from 1: the n of alpha spending.
        challenger: content digest.
        champion: content digest of the champion that it is compared with.
        question: digest of all else that the answer depends on: VAL_TEST, objective, limits.
        run: the run that claimed it.
        git_commit: commit of the code, where it is known.
        n_decisions_before: decisions that were recorded before it; its own has a larger number.
        claimed_at: UTC, ISO 8601.
        is_new: False where an earlier attempt of the same run, or an earlier run, claimed it.
    """

    lineage: str
    number: int
    challenger: str
    champion: str
    question: str
    run: str
    git_commit: str
    n_decisions_before: int
    claimed_at: str
    is_new: bool = field(default=True, compare=False)

    @property
    def asked(self) -> tuple[str, str, str]:
        """What tells comparisons apart: the same again is no new look at the images."""
        return self.challenger, self.champion, self.question


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A decision before it is recorded.

    Attributes:
        kind: first: there was no champion; comparison: by a claimed comparison; by_hand: a person
            promoted it; rollback: a person went back to a former champion.
        promoted: whether the challenger is to become the champion; False is a refusal.
        challenger: content digest of the bundle that was decided on.
        reason: why, one line, in the words of the report.
        because: what the person who decided has said; empty for a run.
        lineage: name of the lineage; empty where it is not known.
        comparison: number of the comparison in the lineage; None where none was made.
        evidence: numbers, intervals and guards, any JSON value without NaN and infinity.
        run: the run, or the command, that decided.
        git_commit: commit of the code, where it is known.
        code_version: digest of the sources.
        by: who decided: a login name for a command; empty for a run.
    """

    kind: Kind
    promoted: bool
    challenger: str
    reason: str
    because: str = ""
    lineage: str = ""
    comparison: int | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    run: str = ""
    git_commit: str = ""
    code_version: str = ""
    by: str = ""


@dataclass(frozen=True, kw_only=True)
class Decision(Draft):
    """A recorded decision.

    A decision with `promoted` took effect where the chain of champions leads to it
    (`BundleRegistry.champions`); else another promotion was first.

    Attributes:
        number: position among all decisions of the registry, from 1.
        champion: content digest of the champion at that time; None where there was none.
        over: number of the decision that had promoted that champion; None where there is none.
        recorded_at: UTC, ISO 8601.
        code: random, so that no two records have the same bytes.
    """

    number: int
    champion: str | None
    over: int | None
    recorded_at: str
    code: str
