"""What all tests share: no network, a cache of their own, one thread."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

# Before any library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="multiprune-tests-")
# Where transformers copies modelling files to: one place, as it is a package that is imported once.
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="multiprune-tests-code-")
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What is started in the background ignores Ctrl-C, and so would all that the suite starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

sys.path.insert(0, str(Path(__file__).parent))
# Benchmarks of whole runs, of which there is a smaller test.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
