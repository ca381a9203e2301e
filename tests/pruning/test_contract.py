"""What every pruning method must keep, over every file of ``conf/pruner``."""

import copy
import inspect
import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from tiers import slow
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LinearLR

from multiprune.budget import FractionBudget, FullBudget
from multiprune.models.late_low_rank import LateLowRankLinear
from multiprune.models.modeling_multiprune import FactoredLinear
from multiprune.pruning.by_task import ByTask, HighestRank, MeanRank
from multiprune.pruning.combined import Combined
from multiprune.pruning.element_wise import ElementWisePruner
from multiprune.pruning.fixed import Fixed
from multiprune.pruning.gradual import GradualPruning
from multiprune.pruning.groups import Blocks, Groups, NofM, Rows
from multiprune.pruning.none import NoPruning
from multiprune.pruning.pruner import Pruner, UnfinishedPruningError
from multiprune.pruning.ranks import RankPruner
from multiprune.pruning.schedule import CubicSchedule
from multiprune.pruning.soft_movement import SoftMovement
from multiprune.pruning.units import UnitPruner

FILES = sorted((Path(__file__).parents[2] / "conf" / "pruner").glob("*.yaml"))

# Two linear layers of 6 x 8 and 8 x 5 weights.
DENSE = 88
# 30 % are 26. 26 * 48 / 88 = 14.18 and 26 * 40 / 88 = 11.82: the larger remainder takes the one
# left over.
KEPT_PER_LAYER = [14, 12]

TOTAL_STEPS, STOP_STEP, EVERY_N_STEPS = 12, 9, 3

# What a method may also keep together; one block costs 4, the others are exact.
GROUPS: dict[str, Groups] = {"blocks": Blocks(size=2), "n_of_m": NofM(n=1, m=2), "rows": Rows()}

# Steps are of these in turn.
TASKS = ("first", "second")
BY_TASK: dict[str, type[ByTask]] = {"mean_rank": MeanRank, "highest_rank": HighestRank}


@dataclass(frozen=True)
class Case:
    file: Path
    per_layer: bool = False
    groups: str = ""
    by_task: str = ""

    def __str__(self) -> str:
        options = ["per_layer" * self.per_layer, self.groups, self.by_task]
        return "-".join([self.file.stem, *filter(None, options)])

    @property
    def method(self) -> type[Pruner]:
        config = OmegaConf.load(self.file)
        method: type[Pruner] = get_class(str(OmegaConf.select(config, "_target_")))
        return method

    @property
    def by_group(self) -> bool:
        """Whether the method has groups of its own; masks are vectors then, one entry a group."""
        return not issubclass(self.method, (ElementWisePruner, NoPruning))

    @property
    def fraction(self) -> float:
        """What may stay; one group of each layer alone may be a third."""
        return 1.0 if self.method is NoPruning else 0.5 if self.by_group else 0.3

    @property
    def largest_group(self) -> int:
        """The most parameters that go or stay together: a rank of the 6 x 8 weights has 14."""
        return 14 if self.by_group else 4 if self.groups == "blocks" else 1

    @property
    def tolerance(self) -> float:
        """How far outputs may be off, where layers are replaced by others that do the same."""
        return 1e-5 if self.by_group else 0.0

    def pruner(self, fraction: float | None = None) -> Pruner:
        options: dict[str, object] = {"per_layer": True} if self.per_layer else {}
        if self.groups:
            options["groups"] = GROUPS[self.groups]
        if self.by_task:
            options["by_task"] = BY_TASK[self.by_task](tasks=TASKS)
        fraction = self.fraction if fraction is None else fraction
        budget = FullBudget() if fraction == 1 else FractionBudget(fraction=fraction)
        pruner: Pruner = instantiate(OmegaConf.load(self.file), budget=budget, **options)
        return pruner

    def is_met(self, kept: int, *, dense: int = DENSE, fraction: float | None = None) -> bool:
        """Whether ``kept`` of ``dense`` parameters meet the budget, and spare less than a group."""
        asked = int((self.fraction if fraction is None else fraction) * dense)
        return asked - self.largest_group < kept <= asked


def cases() -> list[Case]:
    assert FILES, "conf/pruner holds no file"
    found = []
    for file in FILES:
        case = Case(file)
        if issubclass(case.method, UnitPruner | Combined | Fixed):
            # They prune units of known architectures: test_structured_contract.py holds them to
            # the same over an encoder, and test_combined.py their combinations. A fixed mask
            # follows no schedule: test_fixed.py says what it keeps.
            continue
        found.append(case)
        options = inspect.signature(case.method).parameters
        if "per_layer" in options:
            found.append(Case(file, per_layer=True))
        if "groups" in options and case.method is not SoftMovement:  # which refuses them
            found += [Case(file, groups=name) for name in GROUPS]
        if "by_task" in options:
            found += [Case(file, by_task=name) for name in BY_TASK]
            if "per_layer" in options:
                found.append(Case(file, by_task="highest_rank", per_layer=True))
    return found


every_method = pytest.mark.parametrize("case", cases(), ids=str)
every_element_wise_method = pytest.mark.parametrize(
    "case", [case for case in cases() if not case.by_group], ids=str
)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Embedding(11, 6), nn.LayerNorm(6), nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5)
        )
        self.head = nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(tokens).mean(1))
        return logits


def network() -> Network:
    torch.manual_seed(0)
    return Network()


def prepared(case: Case) -> tuple[Network, Pruner]:
    model, pruner = network(), case.pruner()
    pruner.prepare(model, model.encoder)
    return model, pruner


def batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    tokens = torch.randint(11, (4, 5), generator=generator)
    return tokens, torch.randint(3, (4,), generator=generator)


def loss_of(model: nn.Module, number: int) -> Tensor:
    tokens, labels = batch(number)
    return nn.functional.cross_entropy(model(tokens), labels)


def one_step(
    model: nn.Module, optimizer: Optimizer, step: int, *, micro_batches: int = 1, bf16: bool = False
) -> None:
    optimizer.zero_grad()
    for number in range(micro_batches):
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = loss_of(model, 100 * step + number) / micro_batches
        loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def momentum(parameters: Iterable[Tensor]) -> Optimizer:
    return SGD(parameters, lr=0.1, momentum=0.9)


def adamw(parameters: Iterable[Tensor]) -> Optimizer:
    return AdamW(parameters, lr=0.02, weight_decay=0.1)


def driver_of(pruner: Pruner, optimizer: Optimizer) -> GradualPruning:
    schedule = CubicSchedule(start=0.0, stop=STOP_STEP / TOTAL_STEPS)
    driver = GradualPruning(pruner, schedule, total_steps=TOTAL_STEPS, every_n_steps=EVERY_N_STEPS)
    optimizer.register_step_pre_hook(lambda *_: driver.tasks.add(TASKS[driver.step % 2]))
    driver.attach(optimizer)
    return driver


def trained(case: Case, steps: int) -> tuple[Network, Pruner, Optimizer]:
    model, pruner = prepared(case)
    optimizer = adamw(model.parameters())
    driver_of(pruner, optimizer)
    for step in range(steps):
        one_step(model, optimizer, step)
    return model, pruner, optimizer


def pruned_weights(model: nn.Module, pruner: Pruner) -> list[Tensor]:
    if isinstance(pruner, RankPruner):
        # Those of a dense matrix are no entries; test_low_rank_late.py has its singular values.
        targets = [
            target
            for target in pruner.targets
            if not target.is_cut and not isinstance(target.layer, LateLowRankLinear)
        ]
        return [factor[:, ~one.mask] for one in targets for factor in one.factors()]
    return [model.get_parameter(path)[~mask] for path, mask in pruner.masks().items()]


def kept_counts(pruner: Pruner) -> list[int]:
    return [int(mask.sum()) for mask in pruner.masks().values()]


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_same(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(actual[key], expected[key])] == []


@every_method
def test_prepare_keeps_the_function(case: Case) -> None:
    dense, (model, _) = network(), prepared(case)
    tokens, _ = batch(0)
    assert torch.allclose(model(tokens), dense(tokens), rtol=0, atol=case.tolerance)


@every_method
def test_amount_0_prunes_nothing(case: Case) -> None:
    model, pruner, _ = trained(case, steps=2)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    pruner.prune(0.0)
    assert all(mask.all() for mask in pruner.masks().values())
    assert_same(dict(model.named_parameters()), before)
    assert pruner.ledger().kept_in("encoder_linear") == DENSE


def assert_meets_budget(case: Case, model: Network, pruner: Pruner) -> None:
    kept = pruner.ledger().kept_in("encoder_linear")
    assert case.is_met(kept)
    linear = [layer.weight for layer in model.encoder if isinstance(layer, nn.Linear)]
    assert sum(int(weight.count_nonzero()) for weight in linear) <= kept
    if case.per_layer:
        assert kept_counts(pruner) == KEPT_PER_LAYER


@every_method
def test_amount_1_meets_the_budget(case: Case) -> None:
    model, pruner, _ = trained(case, steps=2)
    pruner.prune(1.0)
    assert_meets_budget(case, model, pruner)
    if isinstance(pruner, ElementWisePruner):
        assert sum(kept_counts(pruner)) == pruner.ledger().kept_in("encoder_linear")


@every_method
def test_equal_scores_prune_no_more_than_needed(case: Case) -> None:
    model, pruner = prepared(case)
    for weight in model.encoder.parameters():
        nn.init.constant_(weight, 0.5)
    pruner.prune(1.0)  # no step was taken, so that learned scores are equal too
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
@every_method
def test_pruned_weights_are_zero_after_every_step(case: Case, regime: Regime) -> None:
    model, pruner = prepared(case)
    optimizer = regime.optimizer(model.parameters())
    driver_of(pruner, optimizer)
    for step in range(TOTAL_STEPS):
        before = {path: mask.clone() for path, mask in pruner.masks().items()}
        one_step(model, optimizer, step, micro_batches=regime.micro_batches, bf16=regime.bf16)
        assert all(not weights.any() for weights in pruned_weights(model, pruner))
        if (step + 1) % EVERY_N_STEPS or step + 1 > STOP_STEP:
            assert_same(pruner.masks(), before)
    assert_meets_budget(case, model, pruner)


@dataclass
class Run:
    """A training run built from nothing, as after a restart."""

    model: Network
    pruner: Pruner
    optimizer: Optimizer
    scheduler: LinearLR
    driver: GradualPruning

    @classmethod
    def fresh(cls, case: Case, seed: int) -> "Run":
        torch.manual_seed(seed)
        model, pruner = Network(), case.pruner()
        pruner.prepare(model, model.encoder)
        optimizer = adamw(model.parameters())
        scheduler = LinearLR(optimizer, start_factor=0.25, total_iters=TOTAL_STEPS)
        return cls(model, pruner, optimizer, scheduler, driver_of(pruner, optimizer))

    def train(self, steps: range) -> None:
        for step in steps:
            one_step(self.model, self.optimizer, step)
            self.scheduler.step()

    def save(self) -> bytes:
        file = io.BytesIO()
        torch.save([part.state_dict() for part in self.parts()], file)
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        states = torch.load(io.BytesIO(saved))
        for part, state in zip(self.parts(), states, strict=True):
            part.load_state_dict(state)

    def parts(self) -> list[Any]:
        return [self.model, self.optimizer, self.scheduler]

    def bits(self) -> dict[str, bytes]:
        return {key: value.numpy().tobytes() for key, value in self.model.state_dict().items()}


@pytest.mark.parametrize("saved_after", [1, 5, 9, *slow(3, 4, 8, 10)])
@every_method
def test_resumed_run_equals_straight_run_bit_for_bit(case: Case, saved_after: int) -> None:
    straight = Run.fresh(case, seed=0)
    straight.train(range(saved_after))
    saved = straight.save()
    straight.train(range(saved_after, TOTAL_STEPS))

    resumed = Run.fresh(case, seed=1)
    resumed.load(saved)
    resumed.train(range(saved_after, TOTAL_STEPS))
    assert resumed.bits() == straight.bits()
    assert_same(resumed.pruner.masks(), straight.pruner.masks())


@every_method
def test_masks_are_buffers_of_one_byte_a_weight_or_group(case: Case) -> None:
    model, pruner = prepared(case)
    masks = {key: one for key, one in model.state_dict().items() if key.endswith("_mask")}
    assert masks.keys() == {f"{path}_mask" for path in pruner.masks()}
    for path, mask in pruner.masks().items():
        stored = masks[f"{path}_mask"]
        assert stored.dtype == torch.bool
        assert stored.untyped_storage().nbytes() == mask.numel()
        assert mask.dim() == 1 if case.by_group else mask.shape == model.get_parameter(path).shape
        assert torch.equal(stored, mask)


PLAIN = {nn.Embedding, nn.LayerNorm, nn.GELU, nn.Linear, FactoredLinear}


@every_method
def test_finalize_keeps_the_function_and_leaves_plain_layers(case: Case) -> None:
    model, pruner, _ = trained(case, steps=TOTAL_STEPS)
    tokens, _ = batch(0)
    logits = model(tokens)
    masks = {path: mask.clone() for path, mask in pruner.masks().items()}
    ledger = pruner.ledger()
    pruner.finalize()
    assert torch.allclose(model(tokens), logits, rtol=0, atol=case.tolerance)
    if case.by_group:
        assert not list(model.buffers())
        assert {type(layer) for layer in model.encoder} <= PLAIN
    else:
        assert list(model.state_dict()) == list(network().state_dict())
    assert_same(pruner.masks(), masks)
    assert pruner.ledger() == ledger


@every_method
def test_finalize_before_the_schedule_ends_is_refused_and_changes_nothing(case: Case) -> None:
    model, pruner, _ = trained(case, steps=4)
    if not pruner.excess:
        pruner.finalize()  # there is nothing to wait for
        return
    before, asked = snapshot(model), int(case.fraction * DENSE)
    said = rf"at step 4 of the schedule's 9: \d+ of 88 .* but the budget is {asked}\. Train "
    with pytest.raises(UnfinishedPruningError, match=said):
        pruner.finalize()
    assert_same(model.state_dict(), before)
    pruner.prune(1.0)
    pruner.finalize()
    assert case.is_met(pruner.ledger().kept_in("encoder_linear"))


@every_method
def test_nan_is_refused_at_a_ranking_with_layer_and_step(case: Case) -> None:
    model, pruner, _ = trained(case, steps=4)
    if isinstance(pruner, NoPruning):
        return
    path = list(pruner.masks())[1]
    weight = "encoder.4.up.weight" if isinstance(pruner, RankPruner) else "encoder.4.weight"
    model.get_parameter(weight).data[0, 0] = torch.nan
    masks = {name: mask.clone() for name, mask in pruner.masks().items()}
    said = rf"^Weights of {path.removesuffix('.ranks')} are NaN at a ranking at step 4 of "
    with pytest.raises(FloatingPointError, match=said):
        pruner.prune(1.0)
    assert_same(pruner.masks(), masks)


@every_method
def test_less_than_the_budget_is_refused_too(case: Case) -> None:
    _, pruner, _ = trained(case, steps=STOP_STEP)
    pruner.check_budget()
    for mask in pruner.masks().values():
        mask[1:] = False
    if pruner.excess:
        with pytest.raises(UnfinishedPruningError, match="are kept, but the budget is"):
            pruner.check_budget()


# What is ranked in groups is compared in test_groups.py.
@pytest.mark.parametrize("amount", [0.5, 1.0])
@pytest.mark.parametrize(
    "case",
    [one for one in cases() if issubclass(one.method, ElementWisePruner) and not one.groups],
    ids=str,
)
def test_every_kept_score_is_at_least_every_pruned_one(case: Case, amount: float) -> None:
    model, pruner = prepared(case)
    assert isinstance(pruner, ElementWisePruner)
    optimizer = momentum(model.parameters())
    for step in range(3):
        optimizer.zero_grad()
        loss_of(model, step).backward()  # type: ignore[no-untyped-call]
        pruner.note_tasks([TASKS[step % 2]])
        pruner.before_step()
        optimizer.step()
        pruner.after_step()
    pruner.prune(0.0)
    scores = [score.clone() for score in pruner.finite_scores()]
    assert all(score.min() < score.max() for score in scores)
    pruner.prune(amount)
    masks = list(pruner.masks().values())
    by_threshold = isinstance(pruner, SoftMovement) and amount < 1
    pairs = list(zip(scores, masks, strict=True))
    if not case.per_layer and not by_threshold:
        flat = [torch.cat([one.reshape(-1) for one in many]) for many in (scores, masks)]
        pairs = [(flat[0], flat[1])]
    for score, mask in pairs:
        assert by_threshold or not mask.all()
        assert mask.all() or score[mask].min() >= score[~mask].max()


@every_method
def test_skipped_step_changes_neither_weights_nor_state(case: Case) -> None:
    model, pruner, optimizer = trained(case, steps=7)
    pruner.prune(1.0)
    before = snapshot(model)
    optimizer.zero_grad()
    (loss_of(model, 0) * torch.inf).backward()  # type: ignore[no-untyped-call]
    pruner.before_step()
    pruner.skip_step()
    assert_same(model.state_dict(), before)


@every_method
def test_training_continues_after_a_skipped_step_as_if_it_had_not_been(case: Case) -> None:
    with_skip, without = Run.fresh(case, seed=0), Run.fresh(case, seed=0)
    for run in (with_skip, without):
        run.train(range(7))
        if run is with_skip:
            (loss_of(run.model, 0) * torch.inf).backward()  # type: ignore[no-untyped-call]
            run.driver.before_step(run.optimizer)
            run.driver.skip_step()
        run.train(range(7, TOTAL_STEPS))
    assert_same(with_skip.model.state_dict(), without.model.state_dict())


@every_method
def test_copy_of_a_model_being_pruned_stands_on_its_own(case: Case) -> None:
    model, _, optimizer = trained(case, steps=4)
    copied = copy.deepcopy(model)
    before = snapshot(model)
    assert_same(copied.state_dict(), before)
    for step in range(4, TOTAL_STEPS):
        one_step(model, optimizer, step)
    assert_same(copied.state_dict(), before)


@every_method
def test_model_and_pruner_can_be_copied_together(case: Case) -> None:
    model, pruner, _ = trained(case, steps=4)
    before = snapshot(model)
    copied_model, copied_pruner = copy.deepcopy((model, pruner))
    copied_pruner.prune(1.0)
    assert_meets_budget(case, copied_model, copied_pruner)
    assert_same(model.state_dict(), before)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(6, 4)

    def forward(self, states: Tensor) -> Tensor:
        logits: Tensor = self.second(self.first(states).tanh())
        return logits


@every_element_wise_method
def test_tied_parameters_are_counted_and_masked_once(case: Case) -> None:
    model, pruner = Tied(), case.pruner()
    pruner.prepare(model)
    pruner.prune(1.0)
    masks = pruner.masks()
    # 36 tied weights and 24 others; 30 % of 60.
    assert pruner.ledger().dense_in("encoder_linear") == 60
    if isinstance(pruner, NoPruning):
        assert not masks
        return
    assert list(masks) == ["first.weight", "unused.weight"]
    assert sum(kept_counts(pruner)) == pruner.ledger().kept_in("encoder_linear")
    assert case.is_met(sum(kept_counts(pruner)), dense=60)
    assert [key for key in model.state_dict() if key.endswith("_mask")] == [
        "first.weight_mask",
        "unused.weight_mask",
    ]
    assert model.second.weight is model.first.weight
    assert not model.second.weight[~masks["first.weight"]].any()


@every_method
def test_parameter_without_a_gradient_is_pruned_all_the_same(case: Case) -> None:
    torch.manual_seed(0)
    # Of the 60 weights 36 are tied, and not for methods that replace layers.
    fraction = 0.8 if case.by_group else case.fraction
    model, pruner = Tied(), case.pruner(fraction)
    pruner.prepare(model)
    optimizer = adamw(model.parameters())
    driver = driver_of(pruner, optimizer)
    states = torch.randn(4, 6)
    for _ in range(TOTAL_STEPS):
        optimizer.zero_grad()
        model(states).square().mean().backward()
        assert all(parameter.grad is None for parameter in model.unused.parameters())
        optimizer.step()
        assert all(not weights.any() for weights in pruned_weights(model, pruner))
    assert driver.finished
    kept = pruner.ledger().kept_in("encoder_linear")
    assert case.is_met(kept, dense=60, fraction=fraction)


def test_every_file_of_the_configuration_is_a_pruner() -> None:
    assert all(issubclass(Case(file).method, Pruner) for file in FILES)
    left_out = {file.stem for file in FILES} - {case.file.stem for case in cases()}
    apart = ("attribution", "dynamic", "structured", "combined", "fixed")
    assert left_out == {file.stem for file in FILES if file.stem.startswith(apart)}
    assert all(isinstance(case.pruner(), Pruner) for case in cases())
