"""The decision on a challenger: compared with the champion, recorded, and promoted.

In this order, so that a killed run leaves no doubt: what makes a comparison impossible is found
before one is counted; the comparison is claimed before the images are looked at; the decision is
recorded before the pointer moves. A run that is repeated finds its own claim and its own record.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.promote_bundle import guards
from components.promote_bundle.challenger import Challenger, Images
from components.promote_bundle.comparison import Comparison, compare, finite, too_few_groups
from components.promote_bundle.config import NOT_WORSE, PromoteConfig
from components.promote_bundle.guards import Guard, SliceResult
from components.promote_bundle.objectives import Objective, objective_of
from components.promote_bundle.served import median_latency_ms, served_predictions, size_problem
from components.promote_bundle.spending import level, remaining
from components.promote_bundle.unseen import unseen
from components.shared.contracts.artifacts import code_version
from components.shared.contracts.config import canonical_json
from components.shared.contracts.errors import ConfigError, PermanentError, TransientError
from components.shared.contracts.listing import say
from components.shared.contracts.outcomes import Outcomes
from components.shared.data.attributes import resolved_names
from components.shared.policies.predictions import Predictions
from components.shared.serving.bundle import Bundle, open_bundle
from components.shared.stats.metrics import Integers
from components.shared.stats.slices import Slice, find_slices
from components.shared.storage.errors import StoreConflictError
from components.shared.storage.registry import (
    BundleRegistry,
    Champion,
    Decision,
    Draft,
    Provenance,
)
from components.shared.storage.registry.announcement import Announcement

# How the reason of a refusal begins that no other bundle of the same run form would change.
_NOT_COMPARED = "not compared: "
# Options on which the answer does not depend.
_NO_PART_OF_IT = ("champion", "on_promotion", "model_registry_url")
_N_TRIES = 20  # promotions of others during this one


@dataclass(frozen=True)
class Author:
    """Who asks for a decision.

    Attributes:
        run: the run, or the command.
        git_commit: commit of the code, where it is known.
        by: login name of a person; empty for a run.
        because: what the person says; empty for a run.
    """

    run: str = ""
    git_commit: str = ""
    by: str = ""
    because: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        decision: as it is recorded; of a challenger that is the champion already, the one that
            promoted it, None where there is no record.
        is_new: False where the challenger was the champion already: nothing was compared.
        n_comparisons: claimed comparisons of the lineage so far.
    """

    decision: Decision | None
    is_new: bool
    n_comparisons: int

    @property
    def promoted(self) -> bool:
        """Whether this decision made the challenger the champion."""
        return self.is_new and self.decision is not None and self.decision.promoted


@dataclass(frozen=True)
class _Judged:
    """A verdict before it is recorded."""

    promoted: bool
    reason: str
    evidence: dict[str, Any]
    comparison: int | None = None


def promote(
    config: PromoteConfig, challenger: Challenger, registry: BundleRegistry, author: Author
) -> Outcome:
    """Decide on a challenger, record the decision, and move the pointer where it promotes.

    Another promotion meanwhile is another champion: the challenger is compared with that one.

    Raises:
        ConfigError: promotion=not_worse without a champion, or an objective that the bundle's
            policy does not have.
        PermanentError: the champion cannot be compared: it is of a lineage of which nothing is
            known, decides something else, takes larger images, or has seen too many groups. The
            refusal is recorded.
        ArtifactError: the champion's bundle or the registry's documents are damaged.
        StoreUnsuitableError: the store has no conditional writes.
        TransientError: others promote all the time.
    """
    announcement = Announcement.checked(config.on_promotion, config.model_registry_url)
    registry.require_conditional_writes()
    objective = objective_of(config.objective, challenger.bundle.policy)
    for _ in range(_N_TRIES):
        champion = registry.champion()
        if champion is not None and champion.digest == challenger.digest:
            return _unchanged(challenger, registry, champion)
        try:
            decision = _decide(config, challenger, registry, champion, objective, author)
        except StoreConflictError:
            continue
        if not decision.promoted and decision.reason.startswith(_NOT_COMPARED):
            raise PermanentError(f"{decision.reason}; recorded as decision {decision.number}")
        if decision.promoted:
            for warning in announcement.send(decision, registry, challenger.name):
                say(f"warning: not announced: {warning}")
        return Outcome(decision, True, len(registry.comparisons(challenger.lineage.name)))

    raise TransientError(f"{registry.uri}: the champion changed {_N_TRIES} times meanwhile")


def _unchanged(challenger: Challenger, registry: BundleRegistry, champion: Champion) -> Outcome:
    known = None if champion.decision is None else registry.decision(champion.decision)
    return Outcome(known, False, len(registry.comparisons(challenger.lineage.name)))


def _decide(
    config: PromoteConfig,
    challenger: Challenger,
    registry: BundleRegistry,
    champion: Champion | None,
    objective: Objective,
    author: Author,
) -> Decision:
    if champion is None:
        judged = _judge_first(config, challenger, objective)
    else:
        with tempfile.TemporaryDirectory(prefix="champion-") as folder:
            registry.get_bundle(champion.digest, Path(folder) / "bundle")
            bundle = replace(open_bundle(Path(folder) / "bundle"), name="the champion")
            judged = _judge(config, challenger, registry, champion, bundle, objective, author)

    if judged.promoted:
        _register(challenger, registry, author)

    draft = Draft(
        kind="first" if champion is None else "comparison",
        promoted=judged.promoted,
        challenger=challenger.digest,
        reason=judged.reason,
        because=author.because,
        lineage=challenger.lineage.name,
        comparison=judged.comparison,
        evidence=judged.evidence,
        run=author.run,
        git_commit=author.git_commit,
        code_version=code_version(),
        by=author.by,
    )
    return registry.decide(draft, champion)


def _register(challenger: Challenger, registry: BundleRegistry, author: Author) -> None:
    """Upload the bundle, with all that a later comparison has to know about it."""
    provenance = Provenance(
        lineage=registry.put_lineage(challenger.lineage),
        split_table=registry.put_table(challenger.table),
        run=author.run,
        git_commit=author.git_commit,
        code_version=challenger.manifests["bundle"].code_version,
    )
    registry.put_bundle(challenger.bundle.path, provenance)


def _judge_first(config: PromoteConfig, challenger: Challenger, objective: Objective) -> _Judged:
    """Judge a challenger where there is no champion: by its own guards."""
    if config.promotion == NOT_WORSE:
        raise ConfigError(
            "promotion='not_worse' needs a champion, and the registry has none; use"
            " promotion=better for the first one"
        )

    found = [
        guards.certified_risk(challenger.bundle.policy, None, challenger.guarantees),
        *_latency(config, challenger),
    ]
    predictions = challenger.predictions
    if predictions is None:
        predictions = served_predictions(challenger.bundle, challenger.images)

    promoted = all(guard.holds for guard in found)
    evidence = {
        "challenger": _described(challenger.digest, _label(challenger), challenger.bundle),
        "champion": None,
        "first": {
            "objective": objective.name,
            "label": objective.label,
            "challenger": finite(objective.value(predictions)),
            "n_images": len(predictions.truth),
            "n_groups": predictions.n_groups,
        },
        "guards": [guard.to_json() for guard in found],
    }
    verdict = "the first champion" if promoted else "no champion yet, and a guard refuses"
    return _Judged(promoted, _reason(verdict, found), evidence)


def _judge(
    config: PromoteConfig,
    challenger: Challenger,
    registry: BundleRegistry,
    champion: Champion,
    bundle: Bundle,
    objective: Objective,
    author: Author,
) -> _Judged:
    """Judge a challenger by a comparison with the champion's bundle."""
    evidence: dict[str, Any] = {
        "challenger": _described(challenger.digest, _label(challenger), challenger.bundle),
        "champion": _described(champion.digest, "", bundle),
        "promotion": config.promotion,
    }
    seen = unseen(challenger, champion.digest, registry)
    images = challenger.images.take(seen.rows)
    evidence["left_out_groups"] = seen.n_left_out
    problem = (
        seen.reason
        or _other_task(challenger.bundle, bundle)
        or _other_objective(config, bundle)
        or size_problem(bundle.spec, images.data.image_size)
        or too_few_groups(len(set(images.groups)))
    )
    if problem:
        return _Judged(False, f"{_NOT_COMPARED}{problem}", evidence)

    claimed = registry.claim(
        lineage=challenger.lineage.name,
        challenger=challenger.digest,
        champion=champion.digest,
        question=_question(config, images),
        run=author.run,
        git_commit=author.git_commit,
    )
    ours = _predictions(challenger, seen.rows, images)
    theirs = served_predictions(bundle, images)
    test_level = level(claimed.number, config.promotion_budget)
    comparison = compare(config, objective, ours, theirs, test_level)
    slices = guards.compare_slices(config, objective, ours, theirs, _slices(config, images))
    found = [
        guards.slices_guard(config, slices),
        guards.certified_risk(challenger.bundle.policy, bundle.policy, challenger.guarantees),
        guards.calibration(config, ours, theirs),
        guards.forms(challenger.bundle, bundle),
        *_latency(config, challenger),
    ]

    evidence |= _measured(config, comparison, claimed.number, slices, found)
    promoted = comparison.passes and all(guard.holds for guard in found)
    return _Judged(promoted, _reason(comparison.sentence, found), evidence, claimed.number)


def _measured(
    config: PromoteConfig,
    comparison: Comparison,
    number: int,
    slices: Sequence[SliceResult],
    found: Sequence[Guard],
) -> dict[str, Any]:
    """Return the numbers of a decision's evidence."""
    return {
        "comparison": comparison.to_json(),
        "spending": {
            "number": number,
            "budget": config.promotion_budget,
            "level": comparison.level,
            "remaining": remaining(number, config.promotion_budget),
        },
        "guards": [guard.to_json() for guard in found],
        "slice_tolerance": config.slice_tolerance,
        "slices": [result.to_json() for result in slices],
    }


def _reason(verdict: str, found: Sequence[Guard]) -> str:
    failed = [f"guard {guard.name}: {guard.reason}" for guard in found if not guard.holds]
    return "; ".join([verdict, *failed])


def _latency(config: PromoteConfig, challenger: Challenger) -> list[Guard]:
    """Return the guard of the latency, where there is a budget."""
    if config.latency_budget_ms is None:
        return []
    measured = median_latency_ms(challenger.bundle, challenger.images)
    return [guards.latency(measured, config.latency_budget_ms)]


def _predictions(challenger: Challenger, rows: Integers, images: Images) -> Predictions:
    """Return what the challenger decides on `images`, which are `rows` of VAL_TEST."""
    if challenger.predictions is None:
        return served_predictions(challenger.bundle, images)
    return challenger.predictions.take(rows)


def _slices(config: PromoteConfig, images: Images) -> tuple[Slice, ...]:
    columns = images.columns()
    names = None if config.slices is None else resolved_names(config.slices, columns)
    return find_slices(columns, images.groups, names)


def _question(config: PromoteConfig, images: Images) -> str:
    """Return the digest of all that the answer depends on beside the two bundles."""
    rows = [[sample.sample_id, sample.label, sample.group] for sample in images.samples]
    options = {
        name: value for name, value in config.to_json().items() if name not in _NO_PART_OF_IT
    }
    question = {"images": rows, "options": options}
    return hashlib.sha256(canonical_json(question).encode()).hexdigest()


def _label(challenger: Challenger) -> str:
    return f"{challenger.name} {challenger.version}".strip()


def _described(digest: str, label: str, bundle: Bundle) -> dict[str, Any]:
    return {
        "digest": digest,
        "label": label,
        "policy": bundle.policy.kind,
        "backbone": bundle.spec.backbone_type,
        "image_size": bundle.spec.image_size,
    }


def _other_task(challenger: Bundle, champion: Bundle) -> str:
    """Return how the champion decides something else; empty where it does not."""
    ours, theirs = challenger.policy.outcomes, champion.policy.outcomes
    if ours == theirs:
        return ""
    return f"the champion decides {_task(theirs)}, the challenger {_task(ours)}"


def _task(outcomes: Outcomes) -> str:
    return f"between {list(outcomes.class_names)} ({outcomes.task})"


def _other_objective(config: PromoteConfig, champion: Bundle) -> str:
    """Return why the champion does not have the objective; empty where it has."""
    try:
        objective_of(config.objective, champion.policy)
    except ConfigError:
        return f"objective={config.objective!r}: the champion's policy certifies no risk"
    return ""
