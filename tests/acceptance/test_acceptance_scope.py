"""What of a model pruners touch, how often, and what that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from acceptance_rows import (
    BOTH,
    ELEMENTS,
    KINDS,
    NOTHING,
    RANKS,
    UNITS,
    rows,
)
from acceptance_world import (
    DENSE,
    EVERY_N_STEPS,
    HEADS,
    HIDDEN,
    LAYERS,
    NEURONS,
    STOP_STEP,
    Regime,
    Training,
    bert,
    encoder_of,
    nonzero_weights,
    pruner_of,
)
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AlbertConfig, AlbertForMaskedLM
from typing_extensions import override

if TYPE_CHECKING:
    from torch import nn


def albert() -> AlbertForMaskedLM:
    """Make a model of two layers that are passed twice each, whose decoder is its embeddings."""
    torch.manual_seed(0)
    config = AlbertConfig(
        vocab_size=40,
        embedding_size=16,
        hidden_size=HIDDEN,
        num_hidden_layers=4,
        num_hidden_groups=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=NEURONS,
        max_position_embeddings=16,
        initializer_range=0.2,
    )
    return AlbertForMaskedLM(config)


def sizes_of_parameters(model: nn.Module) -> int:
    storages = {one.data_ptr(): one.numel() for one in model.parameters()}
    return sum(storages.values())


@rows(4)
def test_04_what_is_tied_is_counted_and_masked_once(name: str) -> None:
    model = albert()
    parameters, embeddings = sizes_of_parameters(model), model.albert.embeddings.word_embeddings
    assert model.predictions.decoder.weight is embeddings.weight
    pruner = pruner_of(name, albert())
    pruner.prepare(model, model.albert)
    ledger = pruner.ledger()
    # As BERT, with a mapping of 16 x 32 and no pooler; there are 40 words, 16 places, 2 types.
    dense = DENSE - HIDDEN**2 + 16 * HIDDEN
    assert sum(ledger.dense.values()) == parameters
    assert ledger.dense["encoder_linear"] == dense
    assert ledger.dense["embeddings"] == (40 + 16 + 2) * 16
    pruner.prune(1.0)
    # Six matrices a layer and the mapping; or heads and neurons of a layer.
    masks = {NOTHING: 0, UNITS: 2 * LAYERS, BOTH: 2 * LAYERS + 13}.get(KINDS[name], 13)
    assert len(pruner.masks()) == masks
    pruner.finalize()
    kept = nonzero_weights(model.albert)
    assert kept == pruner.ledger().kept_in("encoder_linear")
    assert kept == dense if KINDS[name] == NOTHING else dense // 2 - 64 < kept <= dense // 2
    assert model.predictions.decoder.weight is embeddings.weight


def tied_bert(seed: int) -> nn.Module:
    model: Any = bert(seed)
    own = model.bert.encoder.layer[0].attention.self
    own.key.weight = own.query.weight
    return model  # type: ignore[no-any-return]


@rows(4)
def test_04_matrices_tied_within_a_layer_are_counted_once_or_refused(name: str) -> None:
    if KINDS[name] in (UNITS, BOTH):
        with pytest.raises(ValueError, match=r"but \S+ is tied to another: untie"):
            Training.begun(name, made=tied_bert)
        return
    training = Training.begun(name, made=tied_bert).train()
    dense = DENSE - HIDDEN**2
    assert training.pruner.ledger().dense_in("encoder_linear") == dense
    training.pruner.finalize()
    own = training.model.bert.encoder.layer[0].attention.self
    assert own.key.weight is own.query.weight
    kept = nonzero_weights(encoder_of(training.model))
    assert kept == training.kept()
    assert kept == dense if KINDS[name] == NOTHING else dense // 2 - 56 < kept <= dense // 2


#: Of units, biases go along.
BIASES_OF_UNITS = ("query.bias", "key.bias", "value.bias", "intermediate.dense.bias")


def nonzero_outside_linear_layers(model: nn.Module) -> dict[str, int]:
    return {
        path: int(one.count_nonzero())
        for path, one in model.named_parameters()
        if one.dim() == 1 or path.startswith(("bert.embeddings", "classifier"))
    }


@rows(6)
def test_06_only_linear_layers_of_the_encoder_are_pruned(name: str) -> None:
    dense, training = nonzero_outside_linear_layers(bert()), Training.begun(name).train()
    training.pruner.finalize()
    left, ledger = nonzero_outside_linear_layers(training.model), training.pruner.ledger()
    of_units = KINDS[name] in (UNITS, BOTH)
    for path, size in dense.items():
        # The bias behind neurons goes with the last of them.
        is_gone = path.endswith("output.dense.bias") and path not in left
        goes_along = of_units and (path.endswith(BIASES_OF_UNITS) or is_gone)
        assert goes_along or left[path] == size, path
    rows_of = {row.part: row for row in ledger.rows()}
    in_scope = set() if KINDS[name] == NOTHING else {"encoder_linear"}
    in_scope |= {"encoder_other"} if of_units else set()
    assert {part for part, row in rows_of.items() if row.in_scope} == in_scope
    assert {part for part, row in rows_of.items() if row.kept != row.dense} == in_scope
    others = [path for path in dense if not path.startswith(("bert.embeddings.", "classifier"))]
    others += [path for path in dense if path.startswith("bert.embeddings.LayerNorm")]
    assert rows_of["encoder_other"].kept == sum(left.get(path, 0) for path in others)


#: Of units there are masks of the dimensions of queries and keys, and of values, too.
UNIT_MASKS = LAYERS * (HEADS + NEURONS + 2 * HIDDEN)
MASKS = {
    NOTHING: 0,
    ELEMENTS: DENSE,
    UNITS: UNIT_MASKS,
    BOTH: DENSE + UNIT_MASKS,
    RANKS: LAYERS * (4 * HIDDEN + 2 * NEURONS) + HIDDEN,
}


@rows(9)
def test_09_masks_take_a_byte_a_weight_or_unit(name: str) -> None:
    training = Training.begun(name).train(STOP_STEP - 1)
    state = training.model.state_dict()
    stored = [one for key, one in state.items() if key.endswith("_mask")]
    assert sum(one.untyped_storage().nbytes() for one in stored) == MASKS[KINDS[name]]
    where = {one.data_ptr() for one in stored}
    assert all(one.data_ptr() in where for one in training.pruner.masks().values())


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what torch computes."""

    count = 0

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **kwargs or {})


def operations_by_step(name: str, micro_batches: int) -> tuple[list[int], list[int]]:
    """Return what each step of the optimizer computes, and after which steps is ranked."""
    training = Training.begun(name, regime=Regime(micro_batches=micro_batches))
    prune, ranked = training.pruner.prune, []

    def noted(amount: float) -> None:
        ranked.append(training.gradual.step)
        prune(amount)

    steps: list[Operations] = []

    def counted() -> Operations:
        steps.append(Operations())  # type: ignore[no-untyped-call]
        return steps[-1]

    training.pruner.prune, training.within = noted, counted  # type: ignore[method-assign]
    training.train()
    return [one.count for one in steps], ranked


@rows(9)
def test_09_pruning_works_once_an_optimizer_step(name: str) -> None:
    once, ranked = operations_by_step(name, 1)
    thrice, ranked_too = operations_by_step(name, 3)
    assert ranked == ranked_too == [*range(EVERY_N_STEPS, STOP_STEP, EVERY_N_STEPS), STOP_STEP]
    between = [step for step in range(1, STOP_STEP) if step not in ranked]
    # Attribution reads passes: what two more have said is added up.
    more = 2 * 6 if name == "attribution" else 0
    assert [thrice[step - 1] - once[step - 1] for step in between] == [more] * len(between)
