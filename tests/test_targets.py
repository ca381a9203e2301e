"""What a configuration from somebody else's folder may name, and that nothing else is imported."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from application import composed
from run_folders import record_with

from multiprune.config import plain
from multiprune.runs.settings import difference, settings_of
from multiprune.specialize.origin import read_origin
from multiprune.targets import check_targets

if TYPE_CHECKING:
    from pathlib import Path

METHOD = "hydra.utils.get_method"


def node(target: Any, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, **arguments}


@pytest.fixture
def payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a module in reach that notes when it is imported, or called; return the note."""
    note = tmp_path / "imported"
    code = f"open({str(note)!r}, 'w').close()\ndef run(*given, **named): pass\nclass Kind: pass\n"
    (tmp_path / "payload.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "payload", raising=False)
    return note


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (node("payload.Kind"), "payload.Kind"),
        ([{"a": [node("torch.hub.load", repo_or_dir="x/y")]}], "torch.hub.load"),
        (node(METHOD, path="payload.run"), "payload.run"),
        (node(METHOD, _args_=["payload.run"]), "_args_"),
        (node(METHOD, path="multiprune.tasks.answer_text.squad", _args_=["payload.run"]), "_args_"),
        (node("hydra.utils.get_object", path="payload.run"), "hydra.utils.get_object"),
        # What a module of ours has imported.
        (node("multiprune.data.cache.os.system", command="x"), "multiprune.data.cache.os.system"),
        (node("multiprune.data.cache.Path", a="x"), "multiprune.data.cache.Path"),
        (node(METHOD, path="multiprune.data.cache.os.system"), "multiprune.data.cache.os.system"),
        # What of ours runs commands, or code of a model.
        (node("multiprune.cli.main", arguments=["status"]), "multiprune.cli.main"),
        (node("multiprune.load", path="x", trust_remote_code=True), "multiprune.load"),
        (node("multiprune.metrics.decisions.decided"), "must name a class"),
        (node("multiprune.tasks.__main__.x"), "multiprune.tasks.__main__.x"),
        (node("multiprune.tasksome.Kind"), "multiprune.tasksome.Kind"),
        (node("multiprune.tasks.nothing.Here"), "cannot be found"),
        (node(["payload.run"]), "payload.run"),
        (node(None), "None"),
        ("${oc.decode:'{_target_: payload.run}'}", "oc.decode"),
        (node("torchmetrics.functional.image.lpips._LPIPS", model_path="x"), "_LPIPS"),
        # What of torchmetrics loads models.
        (node("torchmetrics.multimodal.CLIPScore", model_name_or_path="x"), "CLIPScore"),
        (node("multiprune.metrics.adapter.torchmetrics.text.BERTScore"), "BERTScore"),
    ],
    ids=str,
)
def test_what_is_not_allowed_is_refused_by_name_and_not_imported(
    config: Any, named: str, payload: Path
) -> None:
    with pytest.raises(ValueError, match=r"theirs: task\.x") as error:
        check_targets({"task": {"x": config}}, source="theirs")
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert not payload.exists()


def test_what_the_user_allows_is_found(payload: Path) -> None:
    config = [node("payload.Kind"), node("payload.run"), node(METHOD, path="payload.run")]
    check_targets(config, source="theirs", allowed=["payload"])
    assert payload.exists()
    # But not what is behind it.
    with pytest.raises(ValueError, match=r"torch\.hub\.os"):
        check_targets(node("torch.hub.os.system"), source="theirs", allowed=["torch"])


def test_tasks_and_data_of_every_own_configuration_are_allowed() -> None:
    tasks = "task=[demo,glue_core,mlqa,bc2gm,nicta_piboso,stsb,mlm_streamed]"
    config = plain(composed(tasks))
    check_targets({name: config[name] for name in ("task", "data")}, source="ours")
    for name in ("classification.BinaryAUROC", "regression.MeanSquaredError"):
        check_targets(node(f"torchmetrics.{name}"), source="ours")


def test_no_way_to_read_a_run_imports_what_it_names(tmp_path: Path, payload: Path) -> None:
    theirs = {"task": {"a": node("payload.Kind")}, "data": {}, "seed": 0}
    record_with(config=theirs).write(tmp_path)
    with pytest.raises(ValueError, match=r"task\.a\._target_ names payload\.Kind"):
        read_origin(tmp_path)
    # Nor does asking in what runs differ.
    settings_of(theirs | {"task": {"a": node("payload.Kind", given=1)}})
    found = difference({"task": {"a": node("payload.Kind", given=1)}}, {"task": {}})
    assert found == ("task.a._target_", "payload.Kind", None)
    assert not payload.exists()
