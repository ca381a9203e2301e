"""What a configuration alone tells to be wrong is refused in a sentence that names it."""

from __future__ import annotations

import pytest
from application import composed

from multiprune.checks import check
from multiprune.config import plain

WRONG = {
    "data.batch_size=true": "`data.batch_size` must be a whole number of at least 1, but is True.",
    "data.batch_size=2.5": "`data.batch_size` must be a whole number of at least 1, but is 2.5.",
    "data.batch_size=null": "`data.batch_size` must be a whole number of at least 1, but is None.",
    "data.max_length=1.5": "`data.max_length` must be a whole number of at least 1, but is 1.5.",
    "data.cap.each=0": "`data.cap.each` must be a whole number of at least 1, but is 0.",
    "rank_every_n_steps=true": "`rank_every_n_steps` must be a whole number of at least 1, but is "
    "True.",
    "checkpoint.every_n_steps=-1": "`checkpoint.every_n_steps` must be a whole number of at least "
    "1, but is -1.",
    "seed=1.5": "`seed` must be a whole number in [0, 4294967295], but is 1.5.",
    "trainer.max_steps=1.5": "`trainer.max_steps` must be a whole number of at least -1, but is "
    "1.5.",
    "trainer.max_epochs=2.5": "`trainer.max_epochs` must be a whole number of at least -1, but is "
    "2.5.",
    "trainer.limit_val_batches=nan": "`trainer.limit_val_batches` must be at least 0, but is nan.",
    "trainer.gradient_clip_val=nan": "`trainer.gradient_clip_val` must be at least 0, but is nan.",
    "trainer.max_time=99": "`trainer.max_time` must be days, hours, minutes and seconds, as by "
    "trainer.max_time='00:12:00:00', but is 99.",
    "encoder.dropout=nan": "`encoder.dropout` must be in [0, 1), but is nan.",
    "encoder.head_dropout=1": "`encoder.head_dropout` must be in [0, 1), but is 1.",
    "data.mixing=null": "`data.mixing` must have a class as `_target_`, but is None.",
    "+task.a.b=5": "`task.a` must have a class as `_target_`, but is {'b': 5}.",
    "+logger.a=5": "`logger.a` must have a class as `_target_`, but is 5.",
}


@pytest.mark.parametrize("override", WRONG)
def test_wrong_setting_is_refused_in_a_sentence_that_names_it(override: str) -> None:
    with pytest.raises(ValueError, match="but is") as error:
        check(plain(composed(override)))
    assert str(error.value) == WRONG[override]


def test_trainer_may_leave_numbers_to_lightning() -> None:
    numbers = ("trainer.max_steps=3", "trainer.max_epochs=null", "trainer.log_every_n_steps=0")
    check(plain(composed(*numbers)))
