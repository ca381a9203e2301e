"""What every pruning method must keep, over the files of ``conf/pruner`` that need an encoder."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from structured_world import (
    ALL_FILES,
    ASKED,
    EVERY_N_STEPS,
    HEAD,
    STOP_STEP,
    TOTAL_STEPS,
    WEIGHTS,
    Case,
    Network,
    Run,
    adamw,
    assert_meets_budget,
    assert_same,
    driver_of,
    files,
    linear_weights,
    loss_of,
    masked,
    momentum,
    nonzero_weights,
    one_step,
    permanent,
    snapshot,
    spare_of,
)
from tiers import slow
from tiny_encoders import (
    HEADS_PER_LAYER,
    HIDDEN,
    INTERMEDIATE,
    tokens,
)
from torch import Tensor, nn

from multiprune.pruning.layer_state import STATE
from multiprune.pruning.pruner import UnfinishedPruningError
from multiprune.pruning.removal import (
    BLOCKS,
    GRANULARITIES,
    HEAD_DIMENSIONS,
    HEADS,
    LAYERS,
    NEURONS,
)
from multiprune.pruning.structured import Structured
from multiprune.pruning.structured_l0 import StructuredL0
from multiprune.pruning.units import UnitPruner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch.optim import Optimizer

GATES = (HEADS, NEURONS, BLOCKS, LAYERS)
#: What may keep tasks apart.
BY_GRADIENT = ("structured", "structured_gradient", "attribution", "dynamic_sparsification")


def cases() -> list[Case]:
    found = []
    for file in files():
        every = GATES if Case(file, GATES).method is StructuredL0 else GRANULARITIES
        found += [Case(file, (HEADS, NEURONS)), Case(file, every)]
        if Case(file).method.knows_hidden:
            found += [Case(file, ("hidden",)), Case(file, (*every, "hidden"))]
        if file.stem in BY_GRADIENT:
            found.append(Case(file, every, by_task=True))
    return found


every_method = pytest.mark.parametrize("case", cases(), ids=str)
every_method_that_sets_to_zero = pytest.mark.parametrize(
    "case", [case for case in cases() if not case.keeps_weights], ids=str
)
every_method_that_does_not = pytest.mark.parametrize(
    "case", [case for case in cases() if case.keeps_weights], ids=str
)


def test_every_file_is_a_structured_pruner() -> None:
    every = sorted(files()[0].parent.glob("*.yaml"))
    assert [file for file in every if issubclass(Case(file).method, UnitPruner)] == ALL_FILES


@every_method
def test_prepare_keeps_the_function(case: Case) -> None:
    dense, (model, _) = Network(), case.prepared()
    assert torch.equal(model(tokens()), dense(tokens()))


@every_method
def test_amount_0_prunes_nothing(case: Case) -> None:
    model, pruner, _ = case.trained(steps=2)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    pruner.prune(0.0)
    assert all(mask.all() for mask in pruner.masks().values())
    assert_same(dict(model.named_parameters()), before)
    assert pruner.ledger().kept_in("encoder_linear") == WEIGHTS
    assert not pruner.shrink()


@every_method
def test_amount_1_meets_the_budget_with_less_than_a_group_to_spare(case: Case) -> None:
    model, pruner, _ = case.trained(steps=2)
    pruner.prune(1.0)
    kept = pruner.ledger().kept_in("encoder_linear")
    assert nonzero_weights(permanent(case, model, pruner)[0].encoder) == kept
    assert_meets_budget(case, model, pruner)


@every_method
def test_ten_budgets_are_met_with_less_than_the_smallest_unit_to_spare(case: Case) -> None:
    for percent in range(40, 100, 6):
        _, pruner, _ = replace(case, fraction=percent / 100).trained(STOP_STEP)
        asked = WEIGHTS * percent // 100
        kept = pruner.ledger().kept_in("encoder_linear")
        assert asked - spare_of(pruner) < kept <= asked, percent


@every_method
def test_equal_scores_prune_no_more_than_needed(case: Case) -> None:
    model, pruner = case.prepared()
    for weight in model.encoder.parameters():
        nn.init.constant_(weight, 0.5)
    pruner.prune(1.0)  # no step was taken, so that gathered importance is equal too
    assert_meets_budget(case, model, pruner)


@dataclass(frozen=True)
class Regime:
    optimizer: Callable[[Iterable[Tensor]], Optimizer]
    micro_batches: int = 1
    bf16: bool = False


REGIMES = {
    "momentum": Regime(momentum),
    "weight_decay": Regime(adamw),
    "accumulation": Regime(adamw, micro_batches=2),
    "bf16_autocast": Regime(adamw, bf16=True),
}


@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES)
@every_method_that_sets_to_zero
def test_pruned_weights_are_zero_after_every_step(case: Case, regime: Regime) -> None:
    model, pruner = case.prepared()
    optimizer = regime.optimizer(model.parameters())
    driver_of(pruner, optimizer)
    for step in range(TOTAL_STEPS):
        before = {path: mask.clone() for path, mask in pruner.masks().items()}
        one_step(model, optimizer, step, micro_batches=regime.micro_batches, bf16=regime.bf16)
        assert pruner.is_cut == (step + 1 >= STOP_STEP)
        values = masked(pruner)
        assert all(not one.any() for one in values)
        # Gates close at random and open again, until they are chosen among at the end.
        if STOP_STEP > step + 1 >= EVERY_N_STEPS and case.method is not StructuredL0:
            assert sum(one.numel() for one in values) > 0
        if (step + 1) % EVERY_N_STEPS or step + 1 > STOP_STEP:
            assert_same(pruner.masks(), before)
    assert_meets_budget(case, model, pruner)
    assert linear_weights(model.encoder) == pruner.ledger().kept_in("encoder_linear")


@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES)
@every_method_that_does_not
def test_no_weight_is_touched_and_none_cut_while_larger_parts_are_trained(
    case: Case, regime: Regime
) -> None:
    model, pruner = case.prepared()
    optimizer = regime.optimizer(model.parameters())
    driver_of(pruner, optimizer)
    plain = Network()
    alone = regime.optimizer(plain.parameters())
    for step in range(TOTAL_STEPS):
        before = {path: mask.clone() for path, mask in pruner.masks().items()}
        for one, its in ((model, optimizer), (plain, alone)):
            one_step(one, its, step, micro_batches=regime.micro_batches, bf16=regime.bf16)
        # In training mode the encoder is whole: it is trained as if nothing were pruned.
        assert_same(dict(model.named_parameters()), dict(plain.named_parameters()))
        assert not pruner.is_cut
        if (step + 1) % EVERY_N_STEPS or step + 1 > STOP_STEP:
            assert_same(pruner.masks(), before)
    assert_meets_budget(case, model, pruner)


@pytest.mark.parametrize("saved_after", [1, 4, 9, *slow(3, 8, 10)])
@every_method
def test_resumed_run_equals_straight_run_bit_for_bit(case: Case, saved_after: int) -> None:
    straight = Run.fresh(case, seed=0)
    straight.train(range(saved_after))
    saved = straight.save()
    straight.train(range(saved_after, TOTAL_STEPS))

    resumed = Run.fresh(case, seed=1, saved=saved)
    assert resumed.pruner.is_cut == (saved_after >= STOP_STEP and not case.keeps_weights)
    resumed.train(range(saved_after, TOTAL_STEPS))
    assert resumed.bits() == straight.bits()
    assert_same(resumed.pruner.masks(), straight.pruner.masks())
    assert resumed.pruner.ledger() == straight.pruner.ledger()


@every_method
def test_masks_are_buffers_of_one_byte_a_unit(case: Case) -> None:
    model, pruner = case.prepared()
    state = model.encoder.state_dict()
    sizes = {"heads": HEADS_PER_LAYER, "neurons": INTERMEDIATE}
    for path, mask in pruner.masks().items():
        layer, _, kind = path.rpartition(".")
        number = layer.rpartition(".")[2] or "hidden"
        stored = state[f"{STATE}.{number}.{kind}_mask"]
        assert stored.dtype == torch.bool
        assert stored.numel() == sizes.get(kind, HIDDEN)
        assert stored.untyped_storage().nbytes() == stored.numel()
        assert torch.equal(stored, mask)
    kinds = 4 if HEAD_DIMENSIONS in case.granularity else 2
    assert len(pruner.masks()) == 2 * kinds + ("hidden" in case.granularity)


@pytest.mark.parametrize("steps", [2, TOTAL_STEPS])
@every_method
def test_finalize_keeps_the_function_and_leaves_plain_layers(case: Case, steps: int) -> None:
    model, pruner, _ = case.trained(steps)
    pruner.prune(1.0)
    logits = model.eval()(tokens())
    masks = {path: mask.clone() for path, mask in pruner.masks().items()}
    ledger = pruner.ledger()
    pruner.finalize()
    torch.testing.assert_close(model(tokens()), logits)
    assert model.state_dict().keys() <= Network().state_dict().keys()
    assert all(not isinstance(one, nn.ModuleList) or one for one in model.encoder.modules())
    assert not model.encoder._load_state_dict_pre_hooks
    assert_same(pruner.masks(), masks)
    assert pruner.ledger() == ledger
    assert linear_weights(model.encoder) == ledger.kept_in("encoder_linear")


@every_method
def test_finalize_before_the_schedule_ends_is_refused_and_changes_nothing(case: Case) -> None:
    model, pruner, _ = case.trained(steps=4)
    before = snapshot(model)
    said = rf"at step 4 of the schedule's 9: [\d,]+ of 11,264 .* but the budget is {ASKED:,}\. "
    with pytest.raises(UnfinishedPruningError, match=said):
        pruner.finalize()
    assert_same(model.state_dict(), before)
    pruner.prune(1.0)
    pruner.finalize()


@every_method
def test_nan_is_refused_at_a_ranking_with_layer_and_step(case: Case) -> None:
    model, pruner, _ = case.trained(steps=4)
    linear: Any = model.encoder.get_submodule("encoder.layer.1.output.dense")
    linear.weight.data[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"^Weights of encoder.layer.1 are NaN .* step 4 "):
        pruner.prune(1.0)
    linear.weight.data[0, 0] = 0
    assert pruner.ledger().kept_in("encoder_linear") > ASKED


def test_nan_scores_are_refused_with_the_layer() -> None:
    _, pruner, _ = Case(files()[-1]).trained(steps=2)
    scores = pruner.scores()
    scores[1].heads[0] = torch.nan
    pruner.scores = lambda: scores  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match=r"^Scores of encoder.layer.1 are NaN at "):
        pruner.prune(1.0)


@pytest.mark.parametrize("amount", [0.5, 1.0])
@every_method
def test_every_kept_score_is_at_least_every_pruned_one(case: Case, amount: float) -> None:
    _, pruner, _ = case.trained(steps=2)
    is_relative = isinstance(pruner, Structured) and not pruner.importance.is_loss
    if isinstance(pruner, Structured) and is_relative and not case.by_task:
        scores, relative_to_layer = pruner.absolute_scores(), True
    else:
        scores, relative_to_layer = pruner.scores(), False
    kept_now = [state.kept() for state in pruner.states]
    hidden = torch.zeros(0) if pruner.hidden is None else pruner.hidden_scores(kept_now)
    pruner.prune(amount)
    hidden_mask = pruner.masks().get("hidden", torch.zeros(0).bool())
    hidden_gone = len(hidden_mask) - int(hidden_mask.sum())
    assert not hidden_gone or hidden[hidden_mask].min() >= hidden[~hidden_mask].max()
    kinds = [HEADS, NEURONS]
    # By kind: in the end, a head that would leave room for a neuron is passed over.
    kept: dict[str, list[float]] = {kind: [] for kind in kinds}
    gone: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number, one in enumerate(scores):
        state = pruner.states[number].kept()
        if state.dropped:
            continue
        for kind in kinds:
            mask, score = getattr(state, kind), getattr(one, kind).double()
            if not mask.any():  # gone with its block
                continue
            relative = score / score.square().mean().sqrt() if relative_to_layer else score
            gone[kind] += relative[~mask].tolist()
            # The last of a kind stays whatever its score.
            kept[kind] += relative[mask].tolist() if mask.sum() > 1 else []
            assert mask.all() or score[mask].min() >= score[~mask].max()
        for query_or_value in ("query_key", "value"):
            score, mask = getattr(one, query_or_value), getattr(state, query_or_value)
            for row, keep in zip(score, mask, strict=True):
                assert keep.all() or row[keep].min() >= row[~keep].max()
    if amount < 1:
        kept, gone = ({"": [*one[HEADS], *one[NEURONS]]} for one in (kept, gone))
    if amount < 1 or case.granularity == (HEADS, NEURONS):  # other units differ in size
        compared = [kind for kind in kept if kept[kind] and gone[kind]]
        assert all(min(kept[kind]) >= max(gone[kind]) for kind in compared)
    dropped = any(one.kept().dropped for one in pruner.states)
    assert amount < 1 or any(gone.values()) or dropped or hidden_gone


@every_method
def test_skipped_step_changes_neither_weights_nor_state(case: Case) -> None:
    model, pruner, optimizer = case.trained(steps=7)
    before = snapshot(model)
    optimizer.zero_grad()
    (loss_of(model, 0) * torch.inf).backward()  # type: ignore[no-untyped-call]
    pruner.before_step()
    pruner.skip_step()
    assert_same(model.state_dict(), before)


@pytest.mark.parametrize("skipped_after", [7, 10])
@every_method
def test_training_continues_after_a_skipped_step_as_if_it_had_not_been(
    case: Case, skipped_after: int
) -> None:
    with_skip, without = Run.fresh(case, seed=0), Run.fresh(case, seed=0)
    for run in (with_skip, without):
        run.train(range(skipped_after))
        if run is with_skip:
            (loss_of(run.model, 0) * torch.inf).backward()  # type: ignore[no-untyped-call]
            run.driver.before_step(run.optimizer)
            run.driver.skip_step()
        run.train(range(skipped_after, TOTAL_STEPS))
    assert_same(with_skip.model.state_dict(), without.model.state_dict())


@every_method
def test_copy_of_a_model_being_pruned_stands_on_its_own(case: Case) -> None:
    model, _, optimizer = case.trained(steps=4)
    copied = copy.deepcopy(model)
    before = snapshot(model)
    assert_same(copied.state_dict(), before)
    for step in range(4, TOTAL_STEPS):
        one_step(model, optimizer, step)
    assert_same(copied.state_dict(), before)


@pytest.mark.parametrize("steps", [4, STOP_STEP])
@every_method
def test_model_and_pruner_can_be_copied_together(case: Case, steps: int) -> None:
    model, pruner, _ = case.trained(steps)
    before = snapshot(model)
    copied_model, copied_pruner = copy.deepcopy((model, pruner))
    copied_pruner.prune(1.0)
    assert_meets_budget(case, copied_model, copied_pruner)
    copied_pruner.finalize()
    assert_same(model.state_dict(), before)
    assert STATE in dict(model.encoder.named_children())


@every_method
def test_layer_that_is_passed_four_times_is_counted_and_masked_once(case: Case) -> None:
    kinds = tuple(kind for kind in case.granularity if kind not in (LAYERS, "hidden"))
    if not kinds:
        with pytest.raises(ValueError, match=r"^Hidden dimensions are known of bert, .*'albert'"):
            case.prepared("albert")
        return
    case = Case(case.file, kinds)
    model, pruner = case.prepared("albert")
    of_layer = WEIGHTS // 2
    assert pruner.ledger().prunable["encoder_linear"] == of_layer
    # The mapping of the embeddings counts to the budget, and stays.
    asked = int(0.4 * (of_layer + 16 * HIDDEN))
    pruner.prune(1.0)
    assert len(pruner.states) == 1
    kept = pruner.ledger().kept_in("encoder_linear")
    assert asked - HEAD < kept <= asked
    assert nonzero_weights(permanent(case, model, pruner)[0].encoder) == kept
    pruner.finalize()
    assert linear_weights(model.encoder) == kept


@every_method
def test_layer_without_a_gradient_is_pruned_all_the_same(case: Case) -> None:
    model, pruner = Network(only_first_layer=True), case.pruner()
    pruner.prepare(model, model.encoder)
    optimizer = adamw(model.parameters())
    driver = driver_of(pruner, optimizer)
    unused: Any = model.encoder.get_submodule("encoder.layer.1")
    for step in range(STOP_STEP - 1):
        one_step(model, optimizer, step)
        assert unused.output.dense.weight.grad is None
        assert case.keeps_weights or all(not one.any() for one in masked(pruner))
    pruner.prune(1.0)
    assert_meets_budget(case, model, pruner)
    assert not driver.finished
