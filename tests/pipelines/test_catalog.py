"""The table of pipelines: names in Kubeflow, graphs, forms, and the option that names one."""

import pytest

from components.shared.contracts.errors import ConfigError
from pipelines.catalog import images_of, pipeline_of
from pipelines.kubeflow.options import ApiOptions
from pipelines.names import PIPELINES, STAGE1, key_of, name_in_kubeflow
from pipelines.package import package_named
from pipelines.parameters import FORMS, Variant
from pipelines.resources import LOCAL
from pipelines.sources import phase_image


@pytest.mark.parametrize("key", PIPELINES)
def test_every_pipeline_has_a_form_and_a_graph_of_its_name_and_parameters(key: str) -> None:
    variant = Variant(pipeline=key)
    spec = pipeline_of(LOCAL, variant).pipeline_spec
    assert spec.pipeline_info.name == PIPELINES[key]
    assert set(spec.root.input_definitions.parameters) == set(variant.form)
    assert set(variant.form) <= set(FORMS[key].__dataclass_fields__)


def test_a_pipeline_is_known_by_both_names_and_another_name_is_of_stage1() -> None:
    for key, name in PIPELINES.items():
        assert name_in_kubeflow(key) == name_in_kubeflow(name) == name
        assert ApiOptions(pipeline=key).pipeline == name
        assert key_of(key) == key_of(name) == key
    assert (name_in_kubeflow("trial"), key_of("trial")) == ("trial", STAGE1)


def test_the_images_are_those_of_the_phases_in_the_graph() -> None:
    images = images_of(LOCAL, Variant())
    assert phase_image("evaluate") in images
    assert phase_image("pretrain_explora") not in images
    assert phase_image("pretrain_explora") in images_of(LOCAL, Variant("unlabelled"))


def test_a_misspelt_pipeline_is_not_uploaded_as_another_one() -> None:
    with pytest.raises(ConfigError, match="--pipeline 'continous' is not known, did you mean"):
        package_named("continous", LOCAL, Variant())


def test_an_unknown_pipeline_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="--pipeline 'stage2' must be one of stage1"):
        Variant(pipeline="stage2")
