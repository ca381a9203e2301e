"""What all tests share: no network, a cache of their own, one thread, the same drawn values."""

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
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.mkdtemp(prefix="multiprune-tests-values-")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from shape_checks import check_shapes

# The same values in every run; how long they take to draw depends on what else the machine does.
settings.register_profile(
    "suite",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")
# To search for more: pytest --hypothesis-profile=search --hypothesis-seed=1
settings.register_profile("search", derandomize=False, max_examples=2000, print_blob=True)
# Constants of the modules that happen to be imported would be among the values.
providers.is_local_module_file = lambda _: False  # type: ignore[assignment,attr-defined]

# What is started in the background ignores Ctrl-C, and so would all that the suite starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

sys.path.insert(0, str(Path(__file__).parent))
# Benchmarks of whole runs, of which there is a smaller test.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

# Before any module that states shapes is imported.
check_shapes()
