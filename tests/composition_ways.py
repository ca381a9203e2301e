"""Ways of training in a plain loop that a pruner may meet, and what must hold afterwards."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from composition_world import STEPS, STOP_STEP, Network, Run, adamw, batch_of, started
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from typing_extensions import override

from multiprune.pruning.element_wise import ElementWisePruner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch.optim import Optimizer

    from multiprune.pruning.pruner import Pruner


@cache
def plain(family: str) -> Run:
    """Return a run in which nothing is done besides training."""
    return started(family).train()


def assert_pruned(model: Network, pruner: Pruner) -> None:
    """Hold a model whose training is over against what every pruner promises, and finalize it."""
    pruner.check_budget()
    ledger = pruner.ledger()
    asked = ledger.dense_in("encoder_linear") // 2
    assert asked - pruner.spare <= ledger.kept_in("encoder_linear") <= asked
    assert all(value.isfinite().all() for value in model.state_dict().values())
    if isinstance(pruner, ElementWisePruner):
        for path, mask in pruner.masks().items():
            assert not model.get_parameter(path)[~mask].any(), path
    before = answers(model)
    assert before.isfinite().all()
    pruner.finalize()
    tolerance = 1e-4 if before.dtype == torch.float32 else 0.05
    torch.testing.assert_close(answers(model), before, rtol=0, atol=tolerance)
    # Counted in the encoder itself, by what is in it.
    encoder: nn.Module = model.encoder
    linear = (one for one in encoder.modules() if isinstance(one, nn.Linear))
    weights = {id(one.weight): int(one.weight.count_nonzero()) for one in linear}
    assert sum(weights.values()) <= asked


@torch.no_grad()
def answers(model: Network) -> Tensor:
    """Return the logits of a batch, in evaluation."""
    batch = batch_of(99)
    was, _ = model.training, model.eval()
    logits: Tensor = model(batch["input_ids"], batch["attention_mask"])
    model.train(was)
    return logits


def assert_same(model: nn.Module, expected: nn.Module, tolerance: float = 0.0) -> None:
    """Hold parameters, masks and scores of one model against those of another."""
    own, other = model.state_dict(), expected.state_dict()
    assert own.keys() == other.keys()
    for key, value in own.items():
        # The loss does not depend on it: its gradient is noise, which Adam makes large.
        is_noise = key.endswith(("key.bias", "key.up.bias", "query_key_importance"))
        if tolerance == 0 or not is_noise:
            torch.testing.assert_close(value, other[key], rtol=tolerance, atol=tolerance, msg=key)


def assert_run(run: Run, *, like: Run | None = None, tolerance: float = 0.0) -> None:
    """Hold a run to the promises, and against one that it must be like."""
    assert run.driver.step == STEPS
    if like is not None:
        assert_same(run.model, like.model, tolerance)
    assert_pruned(run.model, run.pruner)


def with_a_stop(family: str, **options: Any) -> Run:
    """Train without a stop, and with one, from which a run continues bit for bit."""
    straight = started(family, **options).train(2)
    file = straight.saved()
    straight.train()
    assert_same(started(family, **options).resumed(file).train().model, straight.model)
    return straight


def is_copied(family: str, copied: Callable[[Any], Any]) -> None:
    """Train a copy of a run on, before layers are cut and after it."""
    for step in (2, 5):
        run = started(family).train(step)
        again = Run(family, *copied((run.model, run.pruner, run.optimizer))).train()
        assert_same(run.train().model, again.model)
        assert_run(again, like=plain(family))


def deep_copy(family: str, _: Path) -> None:
    is_copied(family, copy.deepcopy)


def pickled(family: str, _: Path) -> None:
    is_copied(family, lambda parts: pickle.loads(pickle.dumps(parts)))


def averaged(family: str, _: Path, *, since: int = STOP_STEP) -> None:
    run = started(family).train(since)
    mean = get_ema_multi_avg_fn(0.5)  # type: ignore[no-untyped-call]
    average = AveragedModel(run.model, multi_avg_fn=mean)
    for step in range(since, STEPS):
        run.train(step + 1)
        average.update_parameters(run.model)
    run.model.load_state_dict(average.module.state_dict())
    assert_pruned(run.model, run.pruner)


def checkpointed(family: str, *, reentrant: bool) -> None:
    def enable(model: Network) -> None:
        model.encoder.activation_checkpointing_enable({"use_reentrant": reentrant})
        model.encoder.enable_input_require_grads()

    run = with_a_stop(family, after=enable)
    assert_run(run, like=plain(family), tolerance=1e-6)


def compiled(family: str, *, backend: str) -> None:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        # Of dynamo itself, which asks activations that have hooks for their gradients.
        warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor")
        run = started(family, after=lambda model: model.encoder.compile(backend=backend)).train()
    torch._dynamo.reset()
    assert_run(run, like=plain(family), tolerance=1e-4)


def compiled_before(family: str, _: Path) -> None:
    def wrap_compiled(model: Network) -> None:
        model.encoder = torch.compile(model.encoder, backend="eager")

    run = started(family, before=wrap_compiled).train()
    torch._dynamo.reset()
    assert_run(run)


def freeze(model: Network) -> None:
    """Freeze embeddings and the first of two layers."""
    for path, parameter in model.encoder.named_parameters():
        if path.startswith(("embeddings", "encoder.layer.0.")):
            parameter.requires_grad_(False)


def frozen(family: str, *, when: str) -> None:
    run = with_a_stop(family, **{when: freeze})
    first = run.model.encoder.encoder.layer[0].output.dense.weight
    before = Network().encoder.encoder.layer[0].output.dense.weight
    if first.shape == before.shape:
        kept = first != 0
        assert torch.equal(first[kept], before[kept])
    else:  # neurons were cut, each a column
        assert all((column == before.T).all(1).any() for column in first.T)
    assert_run(run)


def tied(family: str, _: Path) -> None:
    def tie(model: Network) -> None:
        first, second = model.encoder.encoder.layer
        second.intermediate.dense.weight = first.intermediate.dense.weight

    run = with_a_stop(family, before=tie)
    first, second = run.model.encoder.encoder.layer
    assert first.intermediate.dense.weight is second.intermediate.dense.weight
    assert_run(run)


def accumulated(family: str, _: Path) -> None:
    assert_run(started(family).train(micro_batches=2))


def clipped(family: str, _: Path) -> None:
    assert_run(started(family).train(clip=0.1))


def evaluated(family: str, _: Path) -> None:
    run = started(family)
    for step in range(STEPS):
        run.train(step + 1)
        assert torch.equal(answers(run.model), answers(run.model))
        with torch.no_grad():
            run.model.loss(batch_of(98), step)
    assert_run(run, like=plain(family))


def cast(family: str, *, dtype: torch.dtype, when: str = "after") -> None:
    def lower(model: Network) -> None:
        model.to(dtype)

    # The least number that half precision has is above the default of `eps`.
    assert_run(with_a_stop(family, **{when: lower}, optimizer=lambda model: adamw(model, eps=1e-4)))


def with_optimizer(family: str, make: Callable[[Network], Optimizer]) -> None:
    # Of factors in the midst of closing, a rounding grows a little more.
    tolerance = 3e-5 if family == "low_rank_gradual" else 1e-5
    assert_run(with_a_stop(family, optimizer=make), like=plain(family), tolerance=tolerance)


def one_group_a_parameter(model: Network) -> Optimizer:
    return AdamW([{"params": [one]} for one in model.parameters()], lr=0.01, weight_decay=0.1)


def optimizer_first(family: str, _: Path) -> None:
    made: list[Optimizer] = []
    before, optimizer = lambda model: made.append(adamw(model)), lambda _: made.pop()
    assert_run(started(family, before=before, optimizer=optimizer).train(), like=plain(family))


def normalise(model: Network) -> None:
    layer: Any = model.encoder.encoder.layer[0].intermediate.dense
    parametrizations.weight_norm(getattr(layer, "up", layer))


def parametrized(family: str, *, when: str) -> None:
    assert_run(with_a_stop(family, **{when: normalise}))


class Wrapped(nn.Module):
    """As PEFT wraps a layer: the layer, and a small one beside it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.base_layer = layer
        self.lora_a = nn.Linear(layer.in_features, 2, bias=False)
        self.lora_b = nn.Linear(2, layer.out_features, bias=False)

    @override
    def forward(self, states: Tensor) -> Tensor:
        made: Tensor = self.base_layer(states) + self.lora_b(self.lora_a(states))
        return made


def wrapped(family: str, _: Path) -> None:
    def wrap(model: Network) -> None:
        attention = model.encoder.encoder.layer[0].attention.self
        attention.query = Wrapped(attention.query)

    assert_run(with_a_stop(family, before=wrap))


def finalized(family: str) -> tuple[Any, dict[str, Tensor], Tensor]:
    """Return a finalized encoder in evaluation, what it reads, and what it answers."""
    run = started(family).train()
    assert_run(run)
    batch, encoder = batch_of(99), run.model.encoder.eval()
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    return encoder, inputs, encoder(**inputs).last_hidden_state


def exported(family: str, _: Path) -> None:
    encoder, inputs, states = finalized(family)
    program = torch.export.export(encoder, (), kwargs=inputs)
    torch.testing.assert_close(program.module()(**inputs).last_hidden_state, states)


class States(nn.Module):
    """Returns a tensor, as tracing needs it."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    @override
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states: Tensor = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        return states


def traced(family: str, _: Path) -> None:
    encoder, inputs, states = finalized(family)
    with warnings.catch_warnings():
        # Tracing is deprecated, and does not follow what depends on values.
        warnings.simplefilter("ignore")
        program = torch.jit.trace(  # type: ignore[no-untyped-call]
            States(encoder), tuple(inputs.values())
        )
    torch.testing.assert_close(program(*inputs.values()), states)


def saved_whole(family: str, _: Path) -> None:
    encoder, inputs, states = finalized(family)
    file = io.BytesIO()
    torch.save(encoder, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded(**inputs).last_hidden_state, states)
