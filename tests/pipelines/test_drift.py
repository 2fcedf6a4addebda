"""The pipeline `drift`: one task, never cached, with the parameters of its form."""

import pytest
from google.protobuf import json_format

from components.detect_drift.config import DriftForm
from components.shared.contracts.errors import ConfigError
from pipelines.drift import drift
from pipelines.resources import LOCAL
from pipelines.sources import phase_image


def test_the_graph_is_one_task_that_is_never_cached() -> None:
    spec = json_format.MessageToDict(drift(LOCAL).pipeline_spec)
    (task,) = spec["root"]["dag"]["tasks"].values()
    assert not task.get("cachingOptions", {}).get("enableCache", False)
    assert set(spec["root"]["inputDefinitions"]["parameters"]) == set(
        DriftForm.__dataclass_fields__
    )
    (executor,) = spec["deploymentSpec"]["executors"].values()
    assert executor["container"]["image"] == phase_image("detect_drift")


def test_the_form_refuses_what_the_step_would() -> None:
    form = DriftForm(images="s3://bucket/tonight", options={"false_alarm_rate": 0.05})
    assert form.step().false_alarm_rate == 0.05
    with pytest.raises(ConfigError, match=r"images is not set.*; unknown key 'alpha'"):
        DriftForm(options={"alpha": 1})
