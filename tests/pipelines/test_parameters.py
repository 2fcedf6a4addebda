"""Options of the command line become a run's parameters, or a message with the fix."""

import os
from pathlib import Path

import pytest

from components.shared.contracts.errors import ConfigError
from pipelines.parameters import Variant, parse_variant, read_parameters

NONE = Variant()


def test_every_option_is_reached_by_its_name() -> None:
    pairs = [
        "data=photos",
        "epochs=5",
        "dropout=0.2",
        "gradient_clip=1e-1",
        "patience=none",
        "train_gate.dropout=1e-1",
        "label_map={0: None, 1: Roadwork}",
    ]
    assert read_parameters(None, pairs, NONE) == {
        "data": "photos",
        "epochs": "5",
        "overrides": {
            "dropout": 0.2,
            "gradient_clip": 0.1,
            "patience": "none",
            "train_gate.dropout": 0.1,
            "label_map": {"0": "None", "1": "Roadwork"},
        },
    }


def test_pairs_win_over_the_file_which_may_group_options_by_phase(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "epochs: 7\nlearning_rate: 1e-4\ntrain_gate: {epochs: 3}\noverrides: {dropout: 0.5}\n"
    )
    assert read_parameters(file, ["epochs=9"], NONE) == {
        "epochs": "9",
        "learning_rate": "1e-4",
        "overrides": {"train_gate": {"epochs": 3}, "dropout": 0.5},
    }


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["epoch=3"], "unknown option 'epoch', did you mean 'epochs'?"),
        (["epochs=0"], "epochs=0 must be >= 1"),
        (["epochs=many"], "epochs='many' must be int, got str"),
        (["adapter_options=[]"], "adapter_options='[]' must be a JSON mapping"),
        (['adapter_options={"lora_dropout": 0.1}'], "lora_dropout=0.1 would draw anew"),
        (["mode=half"], "mode='half' must be one of frozen, full, lora, dora"),
        (["modes=[lora]"], "'modes' is chosen when the pipeline is compiled: --modes full,lora"),
        (
            ["use_labeled_data=true"],
            "'use_labeled_data' is chosen when the pipeline is compiled: --pretrain labelled",
        ),
        (["explora_rank=3"], "compiled in by --pretrain unlabelled"),
        (["optimizer=profit"], "optimizer='profit' needs a converged start"),
        (["precision=fp16"], "precision='fp16' is refused"),
        (["train_fraction=0.9"], "must be 1"),
        (["learning_rate=2"], "learning_rate=2 must be < 1"),
        (["max_fnr=-0.1"], "max_fnr=-0.1 must be >= 0"),
        (["model_version=1.0"], "model_version='1.0' must be X.Y.Z"),
        (["holdout_column=day"], "holdout_column and holdout_values must be given together"),
        (["label_map={0: Nothing}"], "label_map"),
        (["epochs"], "--param 'epochs' must be key=value"),
        (["dropout=[1"], "--param dropout='[1' is not a number"),
        (["seed=99999999999999999999999"], "seed=99999999999999999999999 must be <= 9007199"),
        (["n_processes=100000"], "n_processes=100000 must be <= 256"),
        (["epochs=1e30"], "must be <= 10000"),
        (["global_batch_size=1e30"], "must be <= 1000000"),
        (["learning_rate=1" + "0" * 400], "learning_rate="),
        (["weight_decay=1" + "0" * 400], "weight_decay=inf must be"),
        (["adapter_options={" + '"a":{' * 5000], "nested deeper than 64"),
        (["extra_sources=" + "[" * 5000], "nested deeper than 64"),
        (["extra_sources=[NaN]"], "extra_sources: not valid JSON"),
        (["dropout=&x [1]"], "anchors (&name) are not read"),
        (["dropout=!!python/name:os.system x"], "tags (!name) are not read"),
        (["holdout_values=" + "[" * 5000], "nested deeper than 64"),
        (["label_map={0: None, '0': Roadwork}"], "the key '0' occurs twice"),
        (["\ud800=1"], "unknown option '\\ud800'"),
        (["a" * 100_000 + "=1"], "unknown option 'aaaa"),
        (["warmup_share=0.2"], "'warmup_share' is now named 'warmup_ratio'"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(pairs: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_parameters(None, pairs, NONE)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 2000


# Nine anchors, each of nine of the one before: 304 bytes that were a gigabyte in the message.
BOMB = "modes:\n" + "".join(
    f"  - &a{n} [{', '.join(['x' if n == 0 else f'*a{n - 1}'] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    "data",
    [
        b"[1, 2]",
        b"1: 2",
        b"null: 2",
        b"a: [",
        b"",
        b"epochs: \xff",
        b"\x00",
        b"epochs: 1\nepochs: 2",
        b"train_gate: {epochs: 1, epochs: 2}",
        b"epochs: !!int 3",
        b"epochs: 0b_",
        b"epochs: " + b"1" * 5000,
        b"[" * 2000,
        b"a: " * 2000,
        b"x" * 300_000,
        BOMB.encode(),
    ],
    ids=lambda data: data[:12].decode("latin-1") + f" {len(data)}",
)
def test_a_file_that_is_no_mapping_of_names_is_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=r"run\.yaml") as caught:
        read_parameters(file, [], NONE)
    assert len(str(caught.value)) < 1000


def test_a_file_of_parameters_may_be_a_link_but_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        read_parameters(tmp_path / "pipe.yaml", [], NONE)

    (tmp_path / "real.yaml").write_text("epochs: 7\ntrain_gate:\n  epochs: 3\n", encoding="utf-8")
    (tmp_path / "link.yaml").symlink_to("real.yaml")
    assert read_parameters(tmp_path / "link.yaml", [], NONE)["epochs"] == "7"


@pytest.mark.parametrize(
    ("pretrain", "modes", "message"),
    [
        ("yes", "", "--pretrain 'yes' must be one of none, unlabelled, labelled"),
        ("none", "full,half", "--modes 'full,half': 'half' must be one of frozen"),
        ("none", "lora,lora", "--modes 'lora,lora' must be without duplicates"),
        ("none", "frozen,full,lora,dora,rslora,pissa,olora", "must be at most 6"),
    ],
)
def test_a_graph_that_cannot_be_compiled_is_refused(
    pretrain: str, modes: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_variant(pretrain, modes)
    assert message in str(caught.value)


@pytest.mark.parametrize("n_parts", [-1, 0, 9])
def test_a_number_of_parts_that_no_graph_has_is_refused(n_parts: int) -> None:
    with pytest.raises(ConfigError, match=f"--ingest-parts {n_parts} must be 1 to 8"):
        parse_variant("none", "", n_parts)


def test_parts_are_in_the_name_of_the_version() -> None:
    assert parse_variant("none", "", 1).name == ""
    assert parse_variant("labelled", "full,lora", 4).name == "pretrain-labelled-full-lora-ingest-4"


def test_the_form_of_a_comparison_has_no_mode() -> None:
    assert "mode" in NONE.form
    assert "mode" not in parse_variant("none", "full, lora").form
    with pytest.raises(ConfigError, match="this pipeline trains full, lora"):
        read_parameters(None, ["mode=lora"], parse_variant("none", "full,lora"))
