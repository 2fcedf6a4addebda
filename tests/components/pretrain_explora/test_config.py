"""Options of extended pre-training that cannot work are refused."""

import pytest

from components.pretrain_explora.config import PretrainExploraConfig
from components.shared.contracts.errors import ConfigError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"explora_decoder_width": 48}, "explora_decoder_width=48 must be a multiple of 32"),
        ({"precision": "fp16"}, "precision='fp16' is refused"),
        ({"explora_teacher_temperature": 0.2}, "explora_teacher_temperature=0.2 must be <= 0.1"),
        ({"explora_objective": "simclr"}, "must be one of dino, mae"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PretrainExploraConfig.from_mapping(changes)


def test_the_rate_follows_the_batch_by_the_published_rules() -> None:
    for size, rate in ((1024, 1e-3), (64, 2.5e-4)):
        config = PretrainExploraConfig(global_batch_size=size)
        assert config.learning_rate == pytest.approx(rate)
    mae = PretrainExploraConfig(explora_objective="mae", global_batch_size=512)
    assert mae.learning_rate == pytest.approx(3e-4)
    assert PretrainExploraConfig(learning_rate=0.01).learning_rate == 0.01
    assert PretrainExploraConfig().gradient_clip == 3.0
