"""The commands of README.md and of sweeps, as a shell would run them, with placeholders filled."""

from __future__ import annotations

import re
import shlex
import subprocess

from application import ROOT, composed
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser

README = (ROOT / "README.md").read_text()

_BLOCK = r"```(\w*)\n(.*?)```"
_PLACEHOLDERS = {"<day>/<time>": "2026-01-01/12-00-00", "=…": "=placeholder", "/…": "/placeholder"}

# Print what they are given, an argument a line, and an empty line behind it.
_STUBS = """
for name in python python3 multiprune pip pytest wandb; do
  eval "$name() { printf '%s\\\\n' $name \\"\\$@\\" ''; }"
done
.() { :; }
"""


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language."""
    return [text for kind, text in re.findall(_BLOCK, README, re.S) if kind == language]


def inline() -> list[str]:
    """Return what stands between backticks within the text."""
    text = re.sub(_BLOCK, "", README, flags=re.S)
    return [one.replace("\n", " ") for one in re.findall(r"`([^`]+)`", text)]


def commands() -> list[list[str]]:
    """Return the words of every command, each once: of code blocks, and within the text."""
    within = [one for one in inline() if re.match(r"(\w+=\S+ )*(python|multiprune) ", one)]
    return _run([*blocks("bash"), *within])


def commands_of_sweeps() -> list[list[str]]:
    """Return the words of every command in the comments of the files of sweeps."""
    files = sorted((ROOT / "sweep").rglob("*.yaml"))
    found = [
        one.replace("\n#", "\n")
        for file in files
        for one in re.findall(r"^#   (python (?:.*\\\n)*.*)$", file.read_text(), re.M)
    ]
    return _run(found)


def _run(scripts: list[str]) -> list[list[str]]:
    script = "\n".join([_STUBS, *scripts])
    for placeholder, value in _PLACEHOLDERS.items():
        script = script.replace(placeholder, value)
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = done.stdout.removesuffix("\n\n").split("\n\n")
    return [one.split("\n") for one in dict.fromkeys(found)]


def compose_commands(found: list[list[str]]) -> None:
    """Compose what ``train.py`` would be given, and of a sweep the last job."""
    jobs = [_job(words) for words in found]
    # Those that differ in numbers alone are composed alike.
    kinds = {(*where, *(re.sub(r"=[\d.,e-]+$", "=0", one) for one in job)): (where, job)
             for *where, job in jobs}  # fmt: skip
    for (directory, name), job in kinds.values():
        composed(*job, config_name=name, directory=directory)


def _job(words: list[str]) -> tuple[str, str, list[str]]:
    """Return the folder and name of a configuration, and overrides without lists to sweep over."""
    options = get_args_parser().parse_args(words)
    directory, name = options.config_dir or "conf", options.config_name or "train"
    job = []
    for one in OverridesParser.create().parse_overrides(options.overrides):
        if not one.is_sweep_override():
            job.append(str(one.input_line))
            continue
        assert options.multirun or directory == "sweep", f"needs -m: {shlex.join(words)}"
        key, values = one.get_key_element(), [*one.sweep_string_iterator()]
        for value in values:
            check_option(key, value)
        job.append(f"{key}={values[-1]}")
    return directory, name, job


def check_option(group: str, names: str) -> None:
    """Check that a group, if it is one, has an option, or each of a list."""
    folders = [folder / group for folder in (ROOT / "conf", ROOT / "sweep")]
    if not any(folder.is_dir() for folder in folders):
        return
    for name in names.strip("[]").split(","):
        assert any((folder / f"{name}.yaml").is_file() for folder in folders), f"{group}={name}"
