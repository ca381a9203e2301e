"""Load transformers models, and refuse weights that do not match."""

from __future__ import annotations

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from multiprune.message import first_line
from multiprune.models.bound import check_fits, stored_in
from multiprune.models.remote_code import check_attention, check_shards

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from transformers import PreTrainedModel

#: Buffers that files of earlier versions of transformers hold.
_BUFFERS = ("position_ids", "token_type_ids", "inv_freq")

_NAMES_SHOWN = 3


def load_matching(kind: Any, source: str, **options: Any) -> PreTrainedModel:
    """Load a model by ``kind.from_pretrained``; all of its weights must be in the file.

    Only a pooler may be missing. What the model does not use may be a pooler or what lies outside
    of the encoder: the heads that it was pretrained with, or finetuned.

    Raises:
        OSError: if ``source`` cannot be read.
        ValueError: if weights are missing, are left over, or have other shapes than the model.
    """
    model, report = load_reported(kind, source, **options)
    check_report(model, report, source)
    return model


def load_reported(
    kind: Any, source: str, **options: Any
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """Load a model by ``kind.from_pretrained``, and what it reports of missing weights and others.

    Raises:
        OSError: if ``source`` cannot be read.
        ValueError: if weights cannot be converted, or are far fewer than the model has, or code of
            somebody else would be run.
    """
    check_shards(Path(source))
    check_attention(options.get("config"), source)
    if (stored := stored_in(source)) is not None:
        given = {key: value for key, value in options.items() if key not in ("config", "dtype")}
        config = options["config"]
        try:
            check_fits(lambda: kind(config, **given), config, stored)
        except ValueError as error:
            raise ValueError(
                f"The weights in {source} do not match its config.json: {error}"
            ) from error
    try:
        model, report = kind.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except UnpicklingError as error:
        raise ValueError(
            f"The weights in {source} are a pickle that cannot be read without running code that "
            "it holds: use weights in safetensors."
        ) from error
    except RuntimeError as error:
        reason = first_line(error)
        raise ValueError(f"The weights in {source} cannot be loaded: {reason}") from error
    return model, report


def check_report(model: PreTrainedModel, report: Mapping[str, Any], source: str) -> None:
    """Refuse what ``from_pretrained`` reports of a model, unless it has found its weights.

    Raises:
        ValueError: if weights are missing, are left over, or have other shapes than the model.
    """
    if mismatched := sorted(report["mismatched_keys"]):
        name, found, asked = mismatched[0]
        raise ValueError(
            f"The weights in {source} do not match its config.json: {len(mismatched)} have another "
            f"shape; {name} is {tuple(found)} in the file and {tuple(asked)} in the model."
        )
    missing = sorted(key for key in report["missing_keys"] if not _is_pooler(key, model))
    unexpected = sorted(key for key in report["unexpected_keys"] if is_of_encoder(key, model))
    if missing or unexpected:
        expected = model.state_dict().keys()
        # With missing weights, a file's other names say why.
        others = sorted(report["unexpected_keys"]) if missing else unexpected
        raise ValueError(
            f"The weights in {source} do not match its config.json: {len(missing)} of the model's "
            f"{len(expected)} are missing{_shown(missing)}, and {len(others)} in the file are not "
            f"used{_shown(others)}; {_advice(expected, missing, others)}."
        )


def _is_pooler(key: str, model: PreTrainedModel) -> bool:
    return _within_encoder(key, model)[0] == "pooler"


def is_of_encoder(key: str, model: PreTrainedModel) -> bool:
    """Whether a weight lies where the encoder has others."""
    first, *_ = within = _within_encoder(key, model)
    modules = {name for name, _ in model.base_model.named_children()}
    return first in modules - {"pooler"} and within[-1] not in _BUFFERS


def _within_encoder(key: str, model: PreTrainedModel) -> list[str]:
    """Return the parts of a weight's name, from the encoder on."""
    first, *rest = key.split(".")
    return rest if first == model.base_model_prefix and rest else [first, *rest]


def _shown(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _NAMES_SHOWN else ""
    return f" ({', '.join(names[:_NAMES_SHOWN])}{more})" if names else ""


def _advice(expected: Collection[str], missing: Sequence[str], others: Sequence[str]) -> str:
    """Return what can be done about names that do not match."""
    ends = (other.removesuffix(key) for key in missing for other in others if other.endswith(key))
    if prefix := next((end for end in ends if end.endswith(".")), None):
        return f"remove the prefix {prefix!r} from the names in the file"
    asked = _numbers(expected)
    held = _numbers([*set(expected).difference(missing), *others])
    if asked != held:
        return f"config.json asks for {asked} layers, and the file holds {held}"
    return "config.json and the weights must be of one model"


def _numbers(names: Collection[str]) -> int:
    """Return how many layers there are, by the numbers in the names of weights."""
    numbers = [int(found[1]) for name in names if (found := re.search(r"\.(\d+)\.", name))]
    return max(numbers, default=-1) + 1
