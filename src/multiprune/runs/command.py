"""The command that repeats a run, from Hydra's files in its folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from multiprune.redact import redacted
from multiprune.runs.schema import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: The folder, within that of a run, where Hydra notes what it composed.
HYDRA = ".hydra"

# Settings of Hydra that configurations refer to, or are composed from.
_COMPOSING = ("hydra.searchpath", "hydra.sweep.dir")

#: What reading what Hydra has noted may raise.
_UNREADABLE = (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError)

# Several times as fast, where PyYAML was built with it.
_LONGEST, _DEEPEST = 2**21, 1000
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def command_of(folder: Path) -> str | None:
    """Return the command that repeats the run in ``folder``, also if it was one job of a sweep.

    None where Hydra has left no trace, or none that can be read.
    """
    try:
        words = ["python", *_composed_from(folder / HYDRA / "hydra.yaml")]
        return shlex.join([*redacted(words), *overrides_of(folder)])
    except (*_UNREADABLE, AttributeError, KeyError):
        return None


def overrides_of(folder: Path) -> list[str]:
    """Return the overrides of the run in ``folder``.

    Raises:
        OSError, ValueError, TypeError, RecursionError, yaml.YAMLError: if Hydra has left none that
            can be read.
    """
    content = _read(folder / HYDRA / "overrides.yaml") or []
    if not isinstance(content, list) or not all(isinstance(one, str) for one in content):
        raise ValueError("overrides.yaml must be a list of overrides")
    # A run of an earlier version may have noted secrets.
    return [str(one) for one in redacted(content)]


def _read(file: Path) -> Any:
    """Return the YAML in a file, unless it is nested so deep that the C parser would crash."""
    text = read_file(file).decode()
    opened = text.count("[") + text.count("{")
    in_line = max((one.count("- ") + one.count("? ") for one in text.splitlines()), default=0)
    # With less text than that, no indentation is deep.
    if len(text) > _LONGEST or max(opened, in_line) > _DEEPEST:
        raise ValueError(f"{file.name} must be what Hydra writes")
    return yaml.load(text, _Loader)


def _composed_from(file: Path) -> list[str]:
    """Return the script, and the options that say what Hydra composed, for a single run."""
    if not file.exists():
        return ["train.py"]
    hydra = _read(file)["hydra"]
    name, given = hydra["job"]["config_name"], hydra["overrides"]["hydra"]
    start = Path(hydra["runtime"]["cwd"])
    words = [*_folders(hydra["runtime"]["config_sources"], start)]
    if name != "train":
        words += ["-cn", name]
    # A configuration may ask for a sweep itself.
    is_asked = name == "train" and "hydra.mode=MULTIRUN" in given
    if hydra["mode"] == "MULTIRUN" and not is_asked:
        words.append("hydra.mode=RUN")
    return [*words, *(one for one in given if one.lstrip("+").partition("=")[0] in _COMPOSING)]


def _folders(sources: Sequence[Mapping[str, str]], start: Path) -> Iterator[str]:
    """Yield the script and the folders of configurations, as seen from ``start``."""
    by_provider = {one["provider"]: Path(one["path"]) for one in sources}
    main = by_provider["main"]
    is_ours = main.name == "conf"
    yield str(_near(main.parent / "train.py", start)) if is_ours else "train.py"
    if not is_ours:
        yield from ("--config-path", str(main))
    if "command-line" in by_provider:
        yield from ("-cd", str(_near(by_provider["command-line"], start)))


def _near(path: Path, start: Path) -> Path:
    return path.relative_to(start) if path.is_relative_to(start) else path
