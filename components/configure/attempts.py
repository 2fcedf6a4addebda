"""Which attempt at its guarantees a run is.

It is counted here and not where a threshold is certified: this step sees every option that a
guarantee depends on, and the number reaches the other steps as an option of theirs, so that a step
from the cache is no new attempt.
"""

from collections.abc import Callable, Mapping
from typing import Any

from components.configure.phases import PHASES
from components.shared.contracts.config import digest
from components.shared.data.attempts import record_attempt
from components.shared.policies.config import AttemptConfig

# A model's logits on VAL_CALIB depend on the options of these phases.
_BEFORE = (
    "ingest_dataset",
    "split_dataset",
    "import_backbone",
    "pretrain_explora",
    "extract_features",
    "train_baseline",
    "compare_adaptations",
    "predict_logits",
    "train_gate",
    "compare_calibrators",
)
_WITHOUT_EFFECT = ("policy", "attempt")


def with_attempts(
    configs: Mapping[str, dict[str, Any]], *, count: Callable[[str, str], int] = record_attempt
) -> dict[str, dict[str, Any]]:
    """Return the configurations with the number of this attempt at each guarantee, and record it.

    Args:
        configs: phase -> its options as JSON-compatible values.
        count: `expected_attempt` records nothing, for the plan of a run.

    Raises:
        ConfigError: the place of the records is malformed.
    """
    data = configs["ingest_dataset"]["source_fingerprint"]
    before = [configs[phase] for phase in _BEFORE]
    found = {phase: dict(values) for phase, values in configs.items()}

    for phase, config_class in PHASES.items():
        if not issubclass(config_class, AttemptConfig):
            continue
        guarantee = config_class.from_mapping(configs[phase]).guarantee()
        if not guarantee:
            continue

        own = {name: v for name, v in configs[phase].items() if name not in _WITHOUT_EFFECT}
        found[phase]["attempt"] = count(digest([data, phase, guarantee]), digest([before, own]))

    return found
