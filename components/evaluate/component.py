"""KFP interface of evaluate."""

from kfp import dsl

from components.evaluate.config import EvaluateConfig
from components.shared.artifact_types import Evaluation, ImageDataset, Policy, ValTestLogits
from components.shared.component import documented
from pipelines.sources import cpu_image


# fmt: off
@dsl.component(base_image=cpu_image(__name__), install_kfp_package=False)
@documented(EvaluateConfig)
def evaluate(
    val_test_logits: dsl.Input[ValTestLogits], gate_test_logits: dsl.Input[ValTestLogits],
    softmax_policy: dsl.Input[Policy], gate_policy: dsl.Input[Policy], scrc_policy: dsl.Input[Policy],
    dataset: dsl.Input[ImageDataset],
    evaluation: dsl.Output[Evaluation], report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics], classification: dsl.Output[dsl.ClassificationMetrics],
    policy: str = "softmax", positive_class: str = "Roadwork", n_bootstrap: int = 2000,
    target_precision: float = 0.95, alpha: float = 0.05, n_hard_examples: int = 12, seed: int = 0,
) -> None:
    """Compare the policies on VAL_TEST with 95 % intervals; ROC, confusion, hard examples of the bundled one."""
    arguments = dict(locals())
    from components.evaluate import config, step
    from components.shared.step import execute
    result = execute(step.run, config.EvaluateConfig, arguments)
    for name, value in result.metrics.items():
        metrics.log_metric(name, value)
    classification.log_roc_curve(*result.roc)
    classification.log_confusion_matrix(result.labels, result.confusion)
