"""Find an encoder: in a folder, a run, this package, or on the hub."""

from __future__ import annotations

from pathlib import Path

#: Stands for the encoder that comes with the package.
EMBEDDED = "multiprune/nano"


def embedded_folder() -> str:
    """Return where the encoder that comes with the package lies, and its tokenizer."""
    return str(Path(__file__).parent / "nano")


def encoder_source(path: str) -> str:
    """Return what transformers loads for ``encoder.path``: a folder, or a name on the hub.

    Raises:
        FileNotFoundError: if ``path`` looks like a folder and there is none, or no model in it.
    """
    folder = Path(embedded_folder() if path == EMBEDDED else path).expanduser()
    # A name on the hub has one slash at most.
    looks_local = path.startswith((".", "/", "~")) or folder.is_dir() or path.count("/") > 1
    if not looks_local:
        return path
    if not (folder / "config.json").is_file() and (folder / "model").is_dir():
        folder = folder / "model"  # of a run
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"`encoder.path` must be a folder with a model in it, but {folder}/config.json "
            "does not exist."
        )
    return str(folder)
