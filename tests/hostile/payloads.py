"""Payloads that leave a mark if they run, and the careless way to read each, which runs it."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from hydra.utils import instantiate
from jinja2 import Template

if TYPE_CHECKING:
    from collections.abc import Callable


def strike(mark: str) -> None:
    """Leave the mark."""
    Path(mark).touch()


class Bomb:
    """Strikes when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return strike, (self.mark,)


def pickled(mark: Path) -> bytes:
    return pickle.dumps(Bomb(mark))


def torch_file(mark: Path) -> bytes:
    file = io.BytesIO()
    needed = ("state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers")
    torch.save({key: {} for key in needed} | {"bomb": Bomb(mark)}, file)
    return file.getvalue()


def python(mark: Path) -> bytes:
    lines = (
        f"open({str(mark)!r}, 'w').close()",
        "from transformers import BertConfig as Config, BertModel as Model",
        "from transformers import BertTokenizer as Tokenizer",
        "Config.model_type = 'bert'",
    )
    return "\n".join(lines).encode()


def target(mark: Path) -> bytes:
    return json.dumps({"_target_": "payloads.strike", "mark": str(mark)}).encode()


def tagged(mark: Path) -> bytes:
    return f"- !!python/object/apply:payloads.strike ['{mark}']\n".encode()


def template(mark: Path) -> bytes:
    return f"{{{{ cycler.__init__.__globals__.os.mkdir('{mark}') }}}}".encode()


#: What a payload is, and the careless way to read it.
PAYLOADS: dict[str, tuple[Callable[[Path], bytes], Callable[[bytes], object]]] = {
    "pickle": (pickled, pickle.loads),
    "torch": (torch_file, lambda raw: torch.load(io.BytesIO(raw), weights_only=False)),
    "python": (python, lambda raw: exec(raw, {})),
    "target": (target, lambda raw: instantiate(json.loads(raw))),
    "yaml": (tagged, lambda raw: yaml.load(raw, yaml.UnsafeLoader)),
    "jinja": (template, lambda raw: Template(raw.decode()).render()),
}
