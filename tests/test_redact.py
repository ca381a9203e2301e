"""No secret of a configuration leaves the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from application import SMALL, composed, run_in
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from multiprune.config import plain
from multiprune.data.source import GeneratedSource
from multiprune.job_name import job_name
from multiprune.launching.redaction import Redaction
from multiprune.redact import HIDDEN, redact_text, redacted
from multiprune.runs.command import command_of
from multiprune.runs.record import is_finished
from multiprune.runs.settings import difference

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("+logger.m.uri=http://me:PASS@host:80/a", "+logger.m.uri=http://me:***@host:80/a"),
        ("uri=mysql+pymysql://me:PA@S/S:1@host/db", "uri=mysql+pymysql://me:***@host/db"),
        ("uri=https://PASS@host/x.git", "uri=https://***@host/x.git"),
        ("a.hf_token=PASS", "a.hf_token=***"),
        ("++a.API_KEY='PA SS'", "++a.API_KEY=***"),
        ("a={user: me, password: PASS}", "a={user: me, password: ***}"),
        ("uri=http://host/?token=PASS&b=1", "uri=http://host/?token=***&b=1"),
        ("b=1,db.secret=PASS,c=2", "b=1,db.secret=***,c=2"),
        *(
            (same, same)
            for same in (
                "tokens=max", "tokenizer=bpe", "mask_token=[MASK]", "a.max_tokens=3", "token=null",
                "password=${oc.env:PASSWORD}", "uri=http://host:5000/users/me@home", "~token",
                "encoder.path=/home/me@host/a:b", "task=[rte,mrpc]", "seed=1",
            )
        ),
    ],
)  # fmt: skip
def test_secrets_and_nothing_else_are_hidden(given: str, shown: str) -> None:
    assert redact_text(given) == shown
    assert redact_text(shown) == shown
    assert redacted({"overrides": [given]}) == {"overrides": [shown]}


def test_values_of_secret_keys_are_hidden_wherever_they_stand() -> None:
    config: dict[str, Any] = {"a": [{"api_key": "PASS", "token": None, "tokens": 3, "secret": 7}]}
    safe = {"a": [{"api_key": "***", "token": None, "tokens": 3, "secret": "***"}]}
    assert redacted(config) == safe
    # A run is resumed, and known to be finished, by what it has left.
    assert difference(safe, config) is None
    assert difference(safe, {"a": [{**config["a"][0], "tokens": 4}]}) == ("a.0.tokens", 3, 4)


def test_the_name_of_a_job_has_no_secret() -> None:
    names = {job_name(["seed=1", f"a.token={one}", f"u=http://x:{one}@h"], []) for one in "PQ"}
    assert len(names) == 1


SECRET = "hunter2"
OVERRIDES = (
    *SMALL,
    "task.agreement.source._target_=test_redact.PrivateSource",
    f"+task.agreement.source.token={SECRET}",
    f"+task.agreement.source.uri=http://me:{SECRET}@host",
    "checkpoint.every_n_steps=1",
)


@dataclass(frozen=True, kw_only=True)
class PrivateSource(GeneratedSource):
    """Needs secrets, and gets them."""

    token: str
    uri: str

    def __post_init__(self) -> None:
        assert self.token == SECRET
        assert self.uri == f"http://me:{SECRET}@host"


def note(config: DictConfig, folder: Path) -> DictConfig:
    """Write what Hydra writes before a job begins; return its whole configuration."""
    whole = HydraConfig.instance().cfg
    assert whole is not None
    plain_one: Any = OmegaConf.to_container(whole, resolve=False)
    hydra = OmegaConf.create(plain_one)
    assert isinstance(hydra, DictConfig)
    hydra.hydra.sweep.dir = str(folder.parent)
    hydra.hydra.overrides.task = [*OVERRIDES]
    notes = {"config": config, "hydra": hydra, "overrides": OmegaConf.create([*OVERRIDES])}
    (folder / ".hydra").mkdir(parents=True)
    for name, content in notes.items():
        OmegaConf.save(content, folder / ".hydra" / f"{name}.yaml")
    OmegaConf.save(hydra, folder.parent / "multirun.yaml")
    return hydra


def test_no_file_of_a_run_has_a_secret(tmp_path: Path) -> None:
    run = tmp_path / "run"
    hydra = note(composed(*OVERRIDES, folder=run), run)
    files = [*(run / ".hydra").iterdir(), tmp_path / "multirun.yaml"]
    assert all(SECRET in file.read_text() for file in files)
    Redaction().on_job_start(config=hydra)
    run_in(run, *OVERRIDES)
    assert (run / "checkpoints" / "last.ckpt").is_file()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file
    assert f"+task.agreement.source.uri=http://me:{HIDDEN}@host" in str(command_of(run))
    # It is known to be finished, whatever its secrets are now.
    changed = [one.replace(SECRET, "hunter3") for one in OVERRIDES]
    assert is_finished(run, plain(composed(*changed, folder=run)))
