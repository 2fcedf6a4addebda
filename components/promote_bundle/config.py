"""Options of the promotion: what a challenger has to show before it becomes the champion."""

from dataclasses import dataclass

from components.shared.contracts.config import option
from components.shared.contracts.options import BootstrapConfig, SlicesConfig

OBJECTIVES = ("mcc", "expected_reward", "augrc", "coverage")
BETTER, NOT_WORSE = "better", "not_worse"


@dataclass(frozen=True, kw_only=True)
class PromoteConfig(BootstrapConfig, SlicesConfig):
    """Options of the promotion."""

    # The bare name means what the threshold maximises.
    QUALIFIED = frozenset({"objective"})

    promotion: str = option(
        BETTER,
        "better: the challenger must be better than the champion by more than min_gain; not_worse:"
        " it must not be worse by more than max_loss, for a model that is refreshed on newer data.",
        choices=(BETTER, NOT_WORSE),
    )
    objective: str = option(
        "mcc",
        "What is compared on VAL_TEST: mcc; expected_reward, of a binary task; augrc, the area"
        " under the generalised risk over coverage; coverage, the fraction of images that the"
        " policy answers at its certified risk.",
        choices=OBJECTIVES,
    )
    min_gain: float = option(
        0.0, "promotion=better: gain of the objective that must be exceeded.", ge=0, lt=1
    )
    max_loss: float = option(
        0.01, "promotion=not_worse: loss of the objective that is allowed.", gt=0, lt=1
    )
    promotion_budget: float = option(
        0.05,
        "Probability of any promotion, in all comparisons of a lineage together, of a challenger"
        " that is not better by min_gain (or is worse by max_loss).",
        gt=0,
        lt=1,
    )
    slice_tolerance: float = option(
        0.05,
        "Loss of the objective on a slice of VAL_TEST above which a challenger is refused, if the"
        " whole interval exceeds it.",
        ge=0,
        lt=1,
    )
    latency_budget_ms: float | None = option(
        None,
        "Longest median time of an answer to one image of VAL_TEST, in milliseconds; none: the"
        " time is not measured.",
        gt=0,
        le=1e6,
        unset="none",
    )
    on_promotion: str = option(
        "", "Address that the record of a promotion is posted to, signed; empty: none."
    )
    model_registry_url: str = option(
        "", "Kubeflow Model Registry in which a promoted bundle is entered; empty: none."
    )
    champion: str = option("", "Digest of the champion when the run began; set by the pipeline.")
