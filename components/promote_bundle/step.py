"""The last phase: compares the bundle with the champion on VAL_TEST and promotes the better one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from components.promote_bundle.author import author_of_run
from components.promote_bundle.challenger import read_challenger
from components.promote_bundle.config import PromoteConfig
from components.promote_bundle.promote import Outcome, promote
from components.promote_bundle.report import render
from components.shared.contracts.artifact_kinds import Kind
from components.shared.contracts.artifacts import write_json, writing
from components.shared.contracts.listing import say
from components.shared.contracts.step import InputDir, OutputDir, OutputFile, main
from components.shared.storage.registry import open_registry

STEP = "promote_bundle"
DOCUMENT = "promotion.json"


@dataclass(frozen=True)
class Result:
    """Values for the KFP UI, by name; 1 stands for yes and 0 for no."""

    metrics: dict[str, float]


def run(
    config: PromoteConfig,
    *,
    bundle: InputDir,
    val_test_logits: InputDir,
    evaluation: InputDir,
    dataset: InputDir,
    splits: InputDir,
    promotion: OutputDir,
    report: OutputFile,
    gate_test_logits: InputDir | None = None,
) -> Result:
    """Decide on the bundle, record the decision in the registry, and write it as an artifact.

    A bundle that is the champion already ends the step at once, and counts no comparison.

    Args:
        config: the options.
        bundle: the challenger.
        val_test_logits: logits of the challenger's model.
        evaluation: of the challenger's policy.
        dataset: the images on which the champion is scored.
        splits: the splits of the dataset, whose lineage the registry records.
        promotion: folder of the Promotion artifact.
        report: the decision as a page.
        gate_test_logits: logits with gate scores, where the bundle's policy is a gate.

    Raises:
        ConfigError: no registry is set, the splits are of no lineage, or promotion=not_worse
            without a champion.
        PermanentError: the champion is of a foreign lineage of which nothing is known, or cannot be
            compared for another reason; the refusal is recorded.
        ArtifactError: artifacts are damaged or of different runs.
        StoreUnsuitableError: the registry's store has no conditional writes.
    """
    challenger = read_challenger(
        bundle,
        dataset,
        splits,
        val_test_logits=val_test_logits,
        gate_test_logits=gate_test_logits,
        evaluation=evaluation,
    )
    if warning := challenger.bundle.signature_warning():
        say(f"warning: {warning}")
    registry = open_registry()
    outcome = promote(config, challenger, registry, author_of_run())
    document = promotion_document(outcome, challenger.digest, registry.uri)
    say(f"{document['outcome']}: {document['reason']}")

    with writing(
        promotion, kind=Kind.PROMOTION, step=STEP, config=config, inputs=challenger.manifests
    ) as out:
        write_json(out / DOCUMENT, document)

    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(render(document), encoding="utf-8")

    return Result(_metrics(document))


def promotion_document(outcome: Outcome, challenger: str, registry: str) -> dict[str, Any]:
    """Return promotion.json: what was decided, and the record of it.

    Args:
        outcome: of the promotion.
        challenger: content digest.
        registry: address of the registry.
    """
    if not outcome.is_new:
        name, reason = "unchanged", "the bundle is the champion already; nothing was compared"
    else:
        assert outcome.decision is not None, "a new decision has a record"
        name = "promoted" if outcome.promoted else "refused"
        reason = outcome.decision.reason

    return {
        "outcome": name,
        "reason": reason,
        "challenger": challenger,
        "registry": registry,
        "n_comparisons": outcome.n_comparisons,
        "decision": None if outcome.decision is None else asdict(outcome.decision),
    }


def _metrics(document: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of the KFP UI; those of a comparison only where one was made."""
    found = {
        "promoted": float(document["outcome"] == "promoted"),
        "comparisons_of_lineage": float(document["n_comparisons"]),
    }
    evidence = (document["decision"] or {}).get("evidence", {})
    if document["outcome"] == "unchanged" or "comparison" not in evidence:
        return found

    compared = evidence["comparison"]
    for name in ("challenger", "champion", "gain", "lower_bound", "p_value", "level"):
        if compared[name] is not None:
            found[name] = float(compared[name])
    found["guards_failed"] = float(sum(not guard["holds"] for guard in evidence["guards"]))
    return found


if __name__ == "__main__":
    main(run, PromoteConfig)
