"""From the run form to one configuration per phase: what is set by what, and what is refused before
a run.
"""

import dataclasses
import inspect
import json
import typing
from pathlib import Path

import pytest
from google.protobuf import json_format, struct_pb2
from kfp.local.executor_output_utils import pb2_struct_to_python

from components.configure.component import configure
from components.configure.config import ConfigureConfig, RunForm
from components.configure.phases import PHASES, SET_BY_PIPELINE
from components.configure.resolve import option_names, phases_with, resolve
from components.configure.step import run
from components.shared.contracts.config import MOST_INTEGER
from components.shared.contracts.errors import ConfigError


def _value(phase: str, option: str, **form: object) -> object:
    return getattr(resolve(ConfigureConfig.from_mapping(form))[phase], option)


def test_an_empty_form_gives_every_phase_its_defaults() -> None:
    for phase, config in resolve(ConfigureConfig()).items():
        assert config == PHASES[phase]()


def test_the_form_wins_over_the_recipe_and_overrides_win_over_both() -> None:
    assert _value("train_baseline", "epochs") == 20
    assert _value("train_baseline", "epochs", recipe="demo") == 8
    assert _value("train_baseline", "epochs", recipe="demo", epochs="3") == 3
    overrides = {"train_baseline.epochs": 5}
    assert _value("train_baseline", "epochs", recipe="demo", epochs="3", overrides=overrides) == 5


def test_an_option_without_a_phase_is_set_in_every_phase_that_has_it() -> None:
    phases = resolve(
        ConfigureConfig(seed="7", overrides={"dropout": 0.5, "train_gate.dropout": 0.25})
    )
    having = [config for config in phases.values() if hasattr(config, "seed")]
    assert len(having) > 5
    assert {config.seed for config in having} == {7}  # type: ignore[attr-defined]
    assert phases["train_baseline"].dropout == 0.5  # type: ignore[attr-defined]
    assert phases["train_gate"].dropout == 0.25  # type: ignore[attr-defined]


def test_overrides_may_be_grouped_by_phase_as_recipes_are() -> None:
    assert (
        _value("train_baseline", "dropout", overrides={"train_baseline": {"dropout": 0.5}}) == 0.5
    )


def test_every_number_has_an_upper_bound_that_a_double_holds() -> None:
    """KFP hands numbers over as doubles; a larger one would fail in the step that uses it."""
    for phase, config_class in PHASES.items():
        hints = typing.get_type_hints(config_class)
        for name, field in config_class.__dataclass_fields__.items():
            if {int, float} & {hints[name], *typing.get_args(hints[name])}:
                bounds = [field.metadata[key] for key in ("le", "lt")]
                bounds = [bound for bound in bounds if bound is not None]
                assert bounds, f"{phase}.{name}"
                assert bounds[0] <= MOST_INTEGER, f"{phase}.{name}"


@pytest.mark.parametrize("first", [True, False])
def test_an_option_of_one_phase_wins_over_that_of_all_in_any_order(first: bool) -> None:
    entries = [("calibrate_scrc.early_exit_error", 0.25), ("early_exit_error", 0.5)]
    phases = resolve(ConfigureConfig(overrides=dict(entries if first else entries[::-1])))
    assert phases["calibrate_scrc"].early_exit_error == 0.25  # type: ignore[attr-defined]
    assert phases["fit_threshold"].early_exit_error == 0.5  # type: ignore[attr-defined]


def test_labels_reach_pre_training_only_where_the_pipeline_was_compiled_so() -> None:
    assert _value("pretrain_explora", "use_labeled_data", pretrain="unlabelled") is False
    assert _value("pretrain_explora", "use_labeled_data", pretrain="labelled") is True


@pytest.mark.parametrize("name", ["epochs", "learning_rate", "global_batch_size", "warmup_ratio"])
def test_a_bare_name_of_the_training_loop_never_sets_pre_training(name: str) -> None:
    assert name in {field.name for field in dataclasses.fields(PHASES["pretrain_explora"])}
    assert "pretrain_explora" not in phases_with(name)
    assert "train_baseline" in phases_with(name)


@pytest.mark.parametrize("precision", ["auto", "tf32", "bf16"])
def test_certificates_are_about_the_predictors_numbers_whatever_trains(precision: str) -> None:
    given = {"precision": precision, "attention": "eager"}
    phases = resolve(ConfigureConfig(overrides=given))
    predicted = phases["predict_logits"].computation()  # type: ignore[attr-defined]
    assert (predicted["precision"], predicted["attention"]) == ("fp32", "sdpa")
    for phase in ("train_baseline", "train_gate", "extract_features", "pretrain_explora"):
        assert phases[phase].computation().items() >= given.items()  # type: ignore[attr-defined]
    assert _value("predict_logits", "precision", recipe="dinov3-large-lora") == "fp32"
    assert _value(
        "predict_logits", "precision", overrides={"predict_logits.precision": "bf16"}
    ) == ("bf16")


def test_an_audit_extracts_features_whatever_is_trained_and_no_more_of_them() -> None:
    def needs(**form: object) -> tuple[bool, str, int | None]:
        found = resolve(ConfigureConfig.from_mapping(form))["extract_features"].to_json()
        return found["needed"], found["augmentation"], found["tile_grid"]

    tiles = {"overrides": {"tile_grid": 2}}
    assert needs(mode="lora", **tiles)[0] is False
    assert needs(mode="lora", audit_labels=True, **tiles) == (True, "none", 2)
    assert needs(mode="frozen", audit_labels=True) == needs(mode="frozen")


def test_the_forms_epochs_and_learning_rate_are_the_classifiers_alone() -> None:
    phases = resolve(ConfigureConfig(epochs="3", learning_rate="0.5", pretrain="unlabelled"))
    for phase in ("pretrain_explora", "train_gate"):
        assert phases[phase] == PHASES[phase]()
    overrides = {"pretrain_explora.epochs": 2, "train_gate": {"epochs": 4}}
    phases = resolve(ConfigureConfig(pretrain="unlabelled", overrides=overrides))
    epochs = {phase: phases[phase].epochs for phase in PHASES if hasattr(phases[phase], "epochs")}
    assert epochs == {"pretrain_explora": 2, "train_baseline": 20, "train_gate": 4}


@pytest.mark.parametrize("text", ["auto", "null"])
def test_the_form_may_leave_a_value_automatic(text: str) -> None:
    overrides = {"train_baseline.learning_rate": 0.5}
    form = {"mode": "full", "learning_rate": text}
    assert _value("train_baseline", "learning_rate", **form) == 2e-5
    assert _value("train_baseline", "learning_rate", **form, overrides=overrides) == 0.5


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"overrides": {"epoch": 3}}, "overrides: unknown option 'epoch', did you mean 'epochs'?"),
        (
            {"overrides": {"train_baseline.epoch": 3}},
            (
                "overrides: unknown option 'train_baseline.epoch', did you mean"
                " 'train_baseline.epochs'?"
            ),
        ),
        ({"overrides": {"optimiser": "adamw"}}, "overrides: 'optimiser' is now named 'optimizer'"),
        (
            {"pretrain": "unlabelled", "overrides": {"explora_epochs": 3}},
            "overrides: 'explora_epochs' is now named 'pretrain_explora.epochs'",
        ),
        (
            {"overrides": {"train_gate": {"gate_learning_rate": 0.1}}},
            "overrides: 'train_gate.gate_learning_rate' is now named 'train_gate.learning_rate'",
        ),
        ({"learning_rate": "0"}, "train_baseline: learning_rate=0 must be > 0, or auto"),
        ({"overrides": {"patience": 0}}, "patience=0 must be >= 1, or none"),
        (
            {"overrides": {"train_baseline.view_grid": 3}},
            "overrides: 'train_baseline.view_grid' is now named 'train_baseline.tile_grid'",
        ),
        (
            {"overrides": {"qqqq": 1}},
            "unknown option 'qqqq', `python -m pipelines parameters` lists all options",
        ),
        ({"epochs": "0"}, "train_baseline: epochs=0 must be >= 1"),
        ({"epochs": "many"}, "train_baseline: epochs='many' must be int, got str"),
        ({"epochs": "2.5"}, "train_baseline: epochs=2.5 must be int, got float"),
        ({"seed": "-1"}, "split_dataset and 15 more: seed=-1 must be >= 0"),
        (
            {"seed": str(2**60)},
            "split_dataset and 15 more: seed=1152921504606846976 must be <= 9007199254740992",
        ),
        ({"mode": "half"}, "train_baseline: mode='half' must be one of frozen, full, lora, dora"),
        ({"policy": "best"}, "policy='best' must be one of softmax, gate, scrc"),
        ({"recipe": "demos"}, "recipe='demos' must be one of default, demo"),
        (
            {"overrides": {"explora_rank": 1}},
            (
                "'explora_rank' is an option of pretrain_explora, which is compiled in by"
                " --pretrain unlabelled"
            ),
        ),
        (
            {"overrides": {"compare_adaptations.n_bootstrap": 100}},
            "is an option of compare_adaptations, which is compiled in by --modes full,lora",
        ),
        (
            {"overrides": {"n_folds": 3}},
            "'n_folds' is an option of audit_labels, which is compiled in by --audit-labels",
        ),
        (
            {"overrides": {"source_fingerprint": "0"}},
            "'source_fingerprint' is computed from the data",
        ),
        (
            {"modes": ["full", "lora"], "mode": "lora"},
            "mode='lora': this pipeline trains full, lora; leave mode empty",
        ),
        (
            {"modes": ["full", "frozen"], "overrides": {"optimizer": "profit"}},
            "optimizer='profit' needs a converged start",
        ),
        (
            {
                "overrides": {
                    "class_names": ["a", "b"],
                    "label_map": {"0": "a", "1": "b"},
                    "positive_class": "Roadwork",
                }
            },
            "positive_class='Roadwork' is not in ['a', 'b']",
        ),
        (
            {"overrides": {"label_map": {"0": "a", "1": "b"}, "positive_class": "Roadwork"}},
            "positive_class='Roadwork' is not in ['a', 'b']",
        ),
        (
            {"overrides": {"class_names": ["a", "b"], "calibrate_scrc.positive_class": "c"}},
            "positive_class='c' is not in ['a', 'b']",
        ),
        (
            {"risk": "fnr", "overrides": {"class_names": ["a", "b", "c"]}},
            "risk='fnr' needs task=binary",
        ),
        ({"overrides": {"task": "multiclass", "max_fnr": 0.1}}, "max_fnr=0.1 needs task=binary"),
        (
            {"overrides": {"class_names": ["None", "Roadwork"], "label_map": {"0": "Nothing"}}},
            "has values ['Nothing'], neither in class_names=['None', 'Roadwork'] nor 'exclude'",
        ),
        (
            {"overrides": {"label_map": {"0": "exclude", "1": "Roadwork"}}},
            "label_map leads to ['Roadwork'] alone, a classifier needs two classes",
        ),
        (
            {"overrides": {"class_names": ["a", " b"]}},
            "class_names=['a', ' b']: a name is empty or has blanks around it",
        ),
        (
            {"overrides": {"class_names": ["a"]}},
            "class_names=['a'] must be at least 2 distinct names, or auto",
        ),
        (
            {
                "overrides": {
                    "class_names": ["None", "Roadwork", "c"],
                    "task": "binary",
                    "tile_grid": 2,
                }
            },
            "tile_grid=2 with task=binary needs 2 classes",
        ),
        (
            {"overrides": {"class_names": ["a", "b", "c"], "conformal_weight": 0.5}},
            "conformal_weight=0.5 needs task=binary",
        ),
        (
            {"overrides": {"class_names": ["a", "b", "c"], "task": "binary"}},
            "needs a positive_class; name one of them, or use task=multiclass",
        ),
        (
            {"overrides": {"attention": "flash", "precision": "fp32"}},
            (
                "attention='flash' with precision='fp32': flash-attn computes in bf16 only; use"
                " precision=bf16 or attention=sdpa"
            ),
        ),
        (
            {"overrides": {"predict_logits.attention": "flash"}},
            "predict_logits: attention='flash' with precision='fp32'",
        ),
    ],
)
def test_what_is_wrong_is_named_before_anything_runs(form: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(ConfigureConfig.from_mapping(form))
    assert message in str(caught.value)


def test_all_problems_of_all_phases_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(ConfigureConfig(epochs="0", overrides={"train_gate.dropout": 2, "max_fnr": -1}))
    for problem in (
        "epochs=0 must be >= 1",
        "train_gate: dropout=2 must be < 1",
        "max_fnr=-1 must be >= 0",
    ):
        assert problem in str(caught.value)


def test_configurations_are_json_and_change_with_the_data_alone_where_it_is_read(
    tmp_path: Path,
) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"one")
    form = ConfigureConfig(data=str(tmp_path), backbone="org/name")
    before = run(form)._asdict()
    image.write_bytes(b"onetwo")
    after = run(form)._asdict()
    changed = [phase for phase in PHASES if before[phase] != after[phase]]
    assert changed == ["ingest_dataset", "split_dataset"], "what is asked of the lineage too"
    assert before["import_backbone"]["backbone_fingerprint"] == "org/name"
    for phase, config_class in PHASES.items():
        read = config_class.from_mapping(before[phase]).to_json()
        named = {name: value for name, value in before[phase].items() if read[name] is not None}
        assert named.items() <= read.items()
        assert None not in before[phase].values()  # kfp.local refuses null in a parameter


@pytest.mark.parametrize("phase", PHASES)
def test_a_configuration_survives_kfp_where_numbers_are_doubles_and_none_is_null(
    phase: str,
) -> None:
    given = PHASES[phase]().to_json()
    assert phase != "train_baseline" or given["micro_batch_size"] is None
    # As kfp.local and KFP's back end hand a dictionary from one task to the next.
    message = json_format.ParseDict(given, struct_pb2.Struct())
    for received in (pb2_struct_to_python(message), json.loads(json_format.MessageToJson(message))):
        assert PHASES[phase].from_mapping(received).to_json() == given
        assert PHASES[phase].from_mapping(received) == PHASES[phase]()


@pytest.mark.parametrize("modes", [("full", "lora"), ("lora", "full"), ("frozen", "full", "lora")])
def test_a_compared_training_has_the_same_configuration_whichever_others_there_are(
    tmp_path: Path, modes: tuple[str, ...]
) -> None:
    form = {"data": str(tmp_path), "backbone": "org/name"}
    config = run(ConfigureConfig(**form, modes=modes))._asdict()["train_baseline"]  # type: ignore[arg-type]
    assert (
        config == run(ConfigureConfig(**form, modes=("full", "lora")))._asdict()["train_baseline"]
    )  # type: ignore[arg-type]
    assert "mode" not in config
    assert "learning_rate" not in config  # the default, which each training resolves


@pytest.mark.parametrize("missing", ["data", "backbone"])
def test_a_source_that_is_not_set_ends_the_first_step(tmp_path: Path, missing: str) -> None:
    form = {"data": str(tmp_path), "backbone": "org/name"} | {missing: ""}
    with pytest.raises(ConfigError, match=f"{missing}='' is not set"):
        run(ConfigureConfig(**form))  # type: ignore[arg-type]


def test_kfps_signature_repeats_the_form() -> None:
    """KFP reads a component's parameters from its source, so the list cannot be generated there."""
    inputs = configure.component_spec.inputs
    assert inputs.keys() == ConfigureConfig.__dataclass_fields__.keys()
    assert configure.component_spec.outputs.keys() == PHASES.keys()


def test_the_form_fits_a_screen_and_every_field_is_described() -> None:
    fields = dataclasses.fields(RunForm)
    assert len(fields) <= 15
    assert all(field.metadata["help"] for field in fields)
    assert {field.name for field in fields} - {"recipe", "overrides"} <= set(option_names())


@pytest.mark.parametrize("phase", PHASES)
def test_every_option_is_described(phase: str) -> None:
    assert all(field.metadata["help"] for field in dataclasses.fields(PHASES[phase]))
    assert inspect.getdoc(PHASES[phase])


def test_what_the_pipeline_sets_is_no_option() -> None:
    assert not set(option_names()) & SET_BY_PIPELINE.keys()


def test_the_size_that_the_model_sees_is_one_for_training_and_features() -> None:
    assert _value("extract_features", "input_size", input_size="112") == 112
    assert _value("train_baseline", "input_size", input_size="112") == 112
    assert _value("train_baseline", "input_size") is None
    with pytest.raises(ConfigError, match="configure: input_size=448 is above image_size=224"):
        resolve(ConfigureConfig(input_size="448"))
    assert _value("train_baseline", "input_size", input_size="448", image_size="448") == 448
