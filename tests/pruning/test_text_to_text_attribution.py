"""Attribution in an encoder-decoder: finite differences, and each label by itself."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tiny_text_to_text import SENTENCES, TASKS, tiny_t5
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from multiprune.budget import FractionBudget
from multiprune.models.architectures import NEURONS, QUERY_KEY, VALUE
from multiprune.models.factory import multitask_model, tasks_for
from multiprune.models.structure import layers_of
from multiprune.models.text_to_text import LabelWords
from multiprune.pruning.attribution import (
    ActivationGradient,
    ActivationNorm,
    Attribution,
    Fisher,
    sum_over_tokens,
)
from multiprune.pruning.attribution_pruner import AttributionPruner
from multiprune.pruning.calibration import LogProbabilities, attributed
from multiprune.pruning.rescale import rescale
from multiprune.pruning.sites import linear_outputs, projection_inputs
from multiprune.pruning.structured import ImportanceState
from multiprune.tasks.task import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multiprune.pruning.importance import Scores
    from multiprune.pruning.sites import Site, Sites

ANSWERS = (2, 0)
ENCODER, DECODER, CROSS = 1, 3, 5
UNITS = [
    (number, kind, index)
    for number, kinds in (
        (ENCODER, (QUERY_KEY, VALUE, NEURONS)),
        (DECODER, (QUERY_KEY, VALUE, NEURONS)),
        (CROSS, (QUERY_KEY, VALUE)),
    )
    for kind in kinds
    for index in (2, 9)
]
every_version = pytest.mark.parametrize("gated", [False, True], ids=["t5", "t5_gated"])
every_kind_of_site = pytest.mark.parametrize("sites", [linear_outputs, projection_inputs])


def all_of_it_in_double(model: nn.Module) -> None:
    """Put torch's norm in the place of T5's, which computes in float32 whatever it is given."""
    for path, module in list(model.named_modules()):
        if isinstance(module, T5LayerNorm):
            norm = nn.RMSNorm(len(module.weight), eps=module.variance_epsilon)
            norm.weight = module.weight
            parent, _, name = path.rpartition(".")
            model.get_submodule(parent).add_module(name, norm)


class Network(nn.Module):
    """A tiny T5 in float64 that is asked for the words of a label for each of two sentences."""

    def __init__(self, *, gated: bool) -> None:
        super().__init__()
        encoder = tiny_t5(gated=gated)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in encoder.model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        self.encoder = encoder
        all_of_it_in_double(encoder.model)
        model = multitask_model(encoder, tasks_for(encoder, TASKS)).double().eval()
        self.t5: Any = model.encoder
        head = model.heads["classes"]
        assert isinstance(head, LabelWords)
        self.head, self.model = head, model
        self.inputs = dict(encoder.tokenizer(SENTENCES, padding=True, return_tensors="pt"))
        self.words = torch.split(head.targets, head.lengths)

    def of_all_labels(self) -> Tensor:
        """Pass the words of all labels, and return the log-probability of the right ones."""
        logits = self.t5(**self.head.inputs_of(self.t5, self.inputs)).logits.log_softmax(-1)
        found = []
        for example, label in enumerate(ANSWERS):
            own = logits[example].split(self.head.lengths)[label]
            found.append(own.gather(-1, self.words[label][:, None]).sum())
        return torch.stack(found)

    def of_right_label(self, example: int) -> Tensor:
        """Pass the words of the right label alone, as transformers does."""
        length = int(self.inputs["attention_mask"][example].sum())
        alone = {name: part[example : example + 1, :length] for name, part in self.inputs.items()}
        words = self.words[ANSWERS[example]][None]
        logits = self.t5(**alone, labels=words).logits.log_softmax(-1)
        found: Tensor = logits.gather(-1, words[..., None]).sum((1, 2))
        return found

    def attributed(self, method: Attribution) -> list[Scores]:
        return attributed(
            self, self.t5, method, [None], lambda _: LogProbabilities(self.of_all_labels())
        )

    def attributed_alone(self, method: Attribution) -> list[Scores]:
        return attributed(
            self,
            self.t5,
            method,
            range(len(ANSWERS)),
            lambda example: LogProbabilities(self.of_right_label(example)),
        )


def gate(sites: Sequence[Site], kind: str, index: int, value: float) -> None:
    """Scale one unit, wherever a site reads it."""

    def scaled(site: Site, tensor: Tensor) -> Tensor:
        gates = torch.ones_like(tensor)
        for own, part in site.parts:
            if own == kind:
                gates[..., part.start + index] = value
        return tensor * gates

    def attach(site: Site) -> None:
        if site.reads_inputs:
            site.linear.register_forward_pre_hook(lambda _, args: (scaled(site, args[0]),))
        else:
            site.linear.register_forward_hook(lambda _, _args, output: scaled(site, output))

    for one in sites:
        attach(one)


@every_kind_of_site
@every_version
def test_sum_over_tokens_is_the_finite_difference_of_a_gate(gated: bool, sites: Sites) -> None:
    network, step = Network(gated=gated), 1e-5
    measured = network.attributed(ActivationGradient(tokens=sum_over_tokens, sites=sites))
    for number, kind, index in UNITS:
        values = []
        for value in (1 + step, 1 - step):
            changed = copy.deepcopy(network)
            gate(sites(layers_of(changed.t5)[number]), kind, index, value)
            with torch.no_grad():
                values.append(float(changed.of_all_labels().sum()))
        expected = (values[0] - values[1]) / (2 * step)
        found = float(getattr(measured[number], kind).reshape(-1)[index])
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-8)
        # A neuron may be off for all tokens.
        assert abs(expected) > 1e-7 or kind == NEURONS


@every_kind_of_site
@every_version
def test_other_labels_play_no_part_in_the_largest_contribution(gated: bool, sites: Sites) -> None:
    network = Network(gated=gated)
    for method in (ActivationGradient(sites=sites), Fisher(sites=sites)):
        together, alone = network.attributed(method), network.attributed_alone(method)
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(vars(one), vars(other))
    below = [bool((one.value < 0).any()) for one in network.attributed(ActivationGradient())]
    assert any(below[2:])


@every_version
def test_training_steps_say_the_same_of_their_loss(gated: bool) -> None:
    network = Network(gated=gated)
    expected = network.attributed(ActivationGradient())
    task = tasks_for(network.encoder, TASKS)["classes"]
    pruner = AttributionPruner(budget=FractionBudget(fraction=0.5), method=ActivationGradient())
    pruner.prepare(network.model, network.t5)
    network.model.train()
    labels = torch.tensor(ANSWERS)
    task.loss(network.model(Batch("classes", network.inputs, labels)), labels).backward()  # type: ignore[no-untyped-call]
    pruner.before_step()
    pruner.after_step()
    # The loss is a mean over tokens, and examples are weighed by their mean length.
    scale = len(ANSWERS) / sum(network.head.lengths[label] for label in ANSWERS)
    for state, one in zip(pruner.states, expected, strict=True):
        assert isinstance(state, ImportanceState)
        for name, part in vars(state.importance()).items():
            wanted = scale * getattr(one, name)
            torch.testing.assert_close(part, wanted.to(part), rtol=1e-4, atol=1e-5)


def test_norm_counts_what_the_decoder_reads() -> None:
    network = Network(gated=False)
    found = network.attributed(ActivationNorm())[DECODER].neurons
    seen = []
    linear = layers_of(network.t5)[DECODER].output_of(NEURONS)
    linear.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network.of_all_labels()
    torch.testing.assert_close(found, seen[0].square().sum((0, 1)).sqrt())


def test_rescaling_a_cut_decoder_brings_it_closer_to_what_it_was() -> None:
    network = Network(gated=True)
    whole = copy.deepcopy(network)
    inputs = [network.head.inputs_of(network.t5, network.inputs)]
    assert rescale(network.t5, whole.t5, inputs) == len(layers_of(whole.t5))
    torch.testing.assert_close(network.of_all_labels(), whole.of_all_labels())
    last = layers_of(network.t5)[DECODER].output_of(NEURONS)
    with torch.no_grad():
        last.weight[:, ::3] = 0
        before = (network.of_all_labels() - whole.of_all_labels()).abs().sum()
        weight = last.weight.clone()
        rescale(network.t5, whole.t5, inputs, damping=1e-3)
        after = (network.of_all_labels() - whole.of_all_labels()).abs().sum()
    assert not torch.equal(weight, last.weight)
    assert after < before
