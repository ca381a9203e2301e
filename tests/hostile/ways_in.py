"""Every way in for what somebody else has written, with what is planted there.

``THEIRS`` is their folder, and ``OUT`` what a command writes; ``MARK`` is what a payload leaves.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
from malformed_folders import changed
from malformed_world import ACCEPTED
from payloads import PAYLOADS, Bomb
from pyarrow import parquet
from run_folders import record_with

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Plant = Callable[[Path, Path], object]


@dataclass(frozen=True)
class Way:
    """A way in: what is planted in a model's folder, the command that reads it, what is said."""

    plant: Plant
    command: str
    expected: str = ACCEPTED


def file(name: str, kind: str) -> Plant:
    """Write a payload in place of a file."""

    def plant(folder: Path, mark: Path) -> None:
        (folder / "sha256.json").unlink(missing_ok=True)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PAYLOADS[kind][0](mark))

    return plant


def both(*plants: Plant) -> Plant:
    return lambda folder, mark: [plant(folder, mark) for plant in plants]


def entries(name: str, **content: Any) -> Plant:
    return lambda folder, _: changed(name, **content)(folder)


def removed(*names: str) -> Plant:
    def plant(folder: Path, _: Path) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return plant


def own_code(model_type: str) -> Plant:
    """Name code in the folder as that of configuration, model and tokenizer."""
    named = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    tokenizer = {"AutoTokenizer": ["code.Tokenizer", "code.Tokenizer"]}
    return both(
        file("code.py", "python"),
        entries("config.json", auto_map=named, model_type=model_type),
        entries("tokenizer_config.json", auto_map=tokenizer, tokenizer_class="Tokenizer"),
    )


def shards_outside(folder: Path, mark: Path) -> None:
    """Let an index name the weights of another folder, whose reading leaves no mark by itself."""
    (folder / "model.safetensors").rename(mark.with_name("secret.safetensors"))
    weights = dict.fromkeys(_names(mark), "../secret.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": weights}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _names(mark: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(mark.with_name("secret.safetensors"), "pt") as opened:
        return [*opened.keys()]


def array(folder: Path, mark: Path) -> None:
    np.save(folder / "rows.npy", np.array([Bomb(mark)], dtype=object), allow_pickle=True)


def extension_type(folder: Path, mark: Path) -> None:
    """Write a table whose type is to be unpickled (CVE-2023-47248)."""
    theirs = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Bomb(mark)),
    }
    text = pyarrow.field("text", pyarrow.string(), metadata=theirs)
    schema = pyarrow.schema([text, pyarrow.field("label", pyarrow.string())])
    rows = {"text": ["the fox runs", "the dogs sleep"] * 20, "label": ["yes", "no"] * 20}
    parquet.write_table(pyarrow.table(rows, schema=schema), folder / "rows.parquet")


def results(**config: Any) -> Plant:
    """Write the results of a run whose configuration names what is to be called."""

    def plant(folder: Path, mark: Path) -> None:
        strike = json.loads(PAYLOADS["target"][0](mark))
        filled = {key: strike if value == "MARK" else value for key, value in config.items()}
        content = {"task": {"agreement": strike}, "data": {}, "seed": 0} | filled
        record_with(config=content).write(folder)

    return plant


def part_of_results(folder: Path, mark: Path) -> None:
    strike = json.loads(PAYLOADS["target"][0](mark))
    content = {"config": {"task": {"agreement": strike}, "data": {}, "seed": 0}}
    (folder / "results.json").write_text(json.dumps(content))


def getter(folder: Path, mark: Path) -> None:
    called = {"_target_": "hydra.utils.get_method", "path": "payloads.strike"}
    results(task={"agreement": called})(folder, mark)


def resolved(folder: Path, mark: Path) -> None:
    results(task={"agreement": "${oc.decode:'{_target_: payloads.strike}'}"})(folder, mark)


_TRAIN = "train encoder.path=THEIRS"
_FILE = "train task=example task.example.source.files.train=THEIRS"
_EXPORT = "export THEIRS --out OUT"
_PREDICT = "predict THEIRS --task agreement --input ROWS"
_EVALUATE = "evaluate THEIRS --task agreement"
_CUT = "specialize THEIRS budget.fraction=0.9 evaluate=false examples=8 out=OUT"
_CLASSIFIER = (
    "specialize --classifier THEIRS data=ROWS text=[text] label=label budget.fraction=0.9 out=OUT"
)
_CUT_AS_STATED = f"{_CUT} data_of=THEIRS"
_BOTH_WEIGHTS = removed("model.safetensors", "sha256.json")
_PICKLED_WEIGHTS = file("model.safetensors", "pickle")
_TORCH_WEIGHTS = both(_BOTH_WEIGHTS, file("pytorch_model.bin", "torch"))
_TEMPLATE = both(file("chat_template.jinja", "jinja"), file("README.md", "jinja"))
_NOT_RUN = "is not imported"

WAYS: dict[str, Way] = {
    # Encoders.
    "code of an encoder": Way(own_code("bert"), _TRAIN),
    "code of an encoder of its own": Way(own_code("own"), _TRAIN, "trust_remote_code=true allows"),
    "code of a tokenizer": Way(
        both(file("code.py", "python"), entries("tokenizer_config.json", tokenizer_class="No")),
        _TRAIN,
    ),
    "weights of torch": Way(_TORCH_WEIGHTS, _TRAIN, "THEIRS"),
    "weights of a pickle": Way(_PICKLED_WEIGHTS, _TRAIN, "THEIRS"),
    "weights of another folder": Way(shards_outside, _TRAIN, "../secret.safetensors"),
    "a template of an encoder": Way(_TEMPLATE, _TRAIN),
    "results beside an encoder": Way(part_of_results, _TRAIN, "results.json must hold the results"),
    "a tokenizer of a pickle": Way(file("tokenizer.json", "pickle"), _TRAIN, "THEIRS"),
    "a kernel of the hub": Way(
        entries("config.json", attn_implementation="nobody/kernel"),
        _TRAIN,
        "nobody/kernel, which is not run",
    ),
    "a tokenizer alone": Way(own_code("bert"), "train encoder.tokenizer=THEIRS"),
    "code of a teacher": Way(
        own_code("own"), "train distillation=logits distillation.teacher=THEIRS", "trust_remote"
    ),
    "weights of masks": Way(
        _PICKLED_WEIGHTS, "train pruner=fixed pruner.mask.run=THEIRS", "model.safetensors"
    ),
    # Data.
    "rows of a pickle": Way(file("rows.pkl", "pickle"), f"{_FILE}/rows.pkl", "must end in"),
    "rows of numpy": Way(array, f"{_FILE}/rows.npy", "must end in"),
    "rows of a pickle called parquet": Way(
        file("rows.parquet", "pickle"), f"{_FILE}/rows.parquet", "rows.parquet is not"
    ),
    "a type to be unpickled": Way(extension_type, f"{_FILE}/rows.parquet"),
    "a mirror": Way(
        both(
            file("glue/mrpc/train.parquet", "pickle"),
            file("glue/mrpc/validation.parquet", "pickle"),
        ),
        "train task=mrpc data.mirror=THEIRS",
        "train.parquet is not",
    ),
    "a task's file": Way(
        file("task/mine.yaml", "yaml"),
        "train task=mine hydra.searchpath=[file://THEIRS]",
        "python/object",
    ),
    "a sweep's file": Way(file("mine.yaml", "yaml"), "train -cd THEIRS -cn mine", "python/object"),
    # Exported models and runs.
    "code of an export": Way(own_code("own"), _EXPORT, "trust_remote_code=True"),
    "code of a known export": Way(own_code("bert"), _EXPORT),
    "a template of an export": Way(_TEMPLATE, _EXPORT),
    "a pickle for weights": Way(_PICKLED_WEIGHTS, _EXPORT, "model.safetensors"),
    "a pickle for heads": Way(file("heads.safetensors", "pickle"), _EXPORT, "heads.safetensors"),
    "a pickle for meaning": Way(file("heads.json", "pickle"), _EXPORT, "heads.json"),
    "a pickle for masks": Way(
        file("model.bitmask.safetensors", "pickle"), _EXPORT, "model.bitmask.safetensors"
    ),
    "a pickle for packed weights": Way(
        file("shared.bitmask.safetensors", "pickle"),
        "benchmark THEIRS",
        "several models that share",
    ),
    "a pickle for sizes": Way(file("sizes.safetensors", "pickle"), _EXPORT, "sizes.safetensors"),
    "torch beside weights": Way(file("pytorch_model.bin", "torch"), _EXPORT),
    "code in a benchmark": Way(own_code("own"), "benchmark THEIRS", "trust_remote_code=True"),
    "a pickle for a graph": Way(file("model.onnx", "pickle"), "benchmark THEIRS", "model.onnx"),
    "code in a pack": Way(own_code("own"), "pack THEIRS THEIRS --out OUT", "trust_remote_code"),
    "a frontier": Way(file("sizes.safetensors", "pickle"), "frontier THEIRS", "sizes.safetensors"),
    "a class of a run": Way(results(), _CUT_AS_STATED, _NOT_RUN),
    "a class of a run's data": Way(results(task={}, data="MARK"), _CUT_AS_STATED, _NOT_RUN),
    "a function of a run": Way(getter, _CUT_AS_STATED, _NOT_RUN),
    "an interpolation of a run": Way(resolved, _CUT_AS_STATED, "must be a value"),
    "code in a prediction": Way(own_code("own"), _PREDICT, "trust_remote_code=True"),
    "code of a known model in a prediction": Way(own_code("bert"), _PREDICT),
    "a pickle in a prediction": Way(_PICKLED_WEIGHTS, _PREDICT, "model.safetensors"),
    "code in an evaluation": Way(own_code("own"), _EVALUATE, "trust_remote_code=True"),
    "a class in an evaluation": Way(results(), _EVALUATE, _NOT_RUN),
    "a class in an evaluation of rows": Way(results(), f"{_EVALUATE} --data ROWS", _NOT_RUN),
    "a function in an evaluation": Way(getter, f"{_EVALUATE} --data-of THEIRS", _NOT_RUN),
    "code of a classifier": Way(own_code("own"), _CLASSIFIER, "THEIRS"),
    "weights of a classifier": Way(_TORCH_WEIGHTS, _CLASSIFIER, "THEIRS"),
    "shards of a classifier": Way(shards_outside, _CLASSIFIER, "../secret.safetensors"),
    # What is read of many runs.
    "overrides in a report": Way(
        file("run/.hydra/overrides.yaml", "yaml"), "report THEIRS --out OUT", "THEIRS"
    ),
    "overrides in a status": Way(
        both(file("run/.hydra/overrides.yaml", "yaml"), file("run/status.json", "target")),
        "status THEIRS",
    ),
    "results in an allocation": Way(part_of_results, "allocate THEIRS --budget 0.5", "THEIRS"),
    "results of a pickle": Way(file("results.json", "pickle"), "report THEIRS --out OUT", "THEIRS"),
}
