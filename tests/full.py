"""Tests that take minutes and watch over few parts of the project: when they run.

Without a flag they are skipped. `--full` runs them all, `--full-since=REVISION` those
of parts that have changed since a revision of git.
"""

import fnmatch
import pathlib
import subprocess
from collections.abc import Iterable

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# by the name that the mark `full` gives: files and folders that a test watches over
PARTS = {
    "benches": ("mmcl_jax/models", "tests/bench", "tests/bench_test.py"),
    "devices": (
        "mmcl_jax/methods",
        "mmcl_jax/models",
        "mmcl_jax/ops",
        "mmcl_jax/parallel",
        "mmcl_jax/training",
        "tests/contract.py",
        "tests/runs_test.py",
        "tests/second_start_test.py",
        "tests/sharding_test.py",
    ),
    "encoders": (
        "configs",
        "docs/encoders.md",
        "mmcl_jax/modalities",
        "mmcl_jax/models",
        "mmcl_jax/pretrain",
        "tests/conse_test.py",
        "tests/encoder_configs_test.py",
        "tests/families_test.py",
        "tests/input_references.py",
        "tests/inputs_test.py",
        "tests/parity",
        "tests/published_folders_test.py",
        "tests/stem_test.py",
        "tests/tokenization_test.py",
    ),
    "export": (
        "mmcl_jax/export.py",
        "mmcl_jax/methods",
        "mmcl_jax/models",
        "mmcl_jax/ops",
        "mmcl_jax/serving",
        "mmcl_jax/training",
        "tests/export_test.py",
    ),
    "extension": (
        "mmcl_jax/extend.py",
        "mmcl_jax/methods",
        "mmcl_jax/streams",
        "mmcl_jax/training",
        "mmcl_jax/workdir",
        "tests/capacity_test.py",
        "tests/extended_novelty_test.py",
        "tests/chaos/extension_chain_test.py",
        "tests/extension_test.py",
        "tests/retirement_test.py",
    ),
    # damaged files of every kind that is decoded
    "files": (
        "mmcl_jax/files.py",
        "mmcl_jax/modalities",
        "mmcl_jax/models/pretrained",
        "mmcl_jax/report/run_loader.py",
        "mmcl_jax/serving/from_workdir.py",
        "mmcl_jax/streams",
        "mmcl_jax/workdir",
        "tests/chaos/forgery.py",
        "tests/fuzz",
        "tests/identity_test.py",
        "tests/verification_test.py",
    ),
    # of a run of one process or several
    "interruption": (
        "mmcl_jax/main.py",
        "mmcl_jax/parallel",
        "mmcl_jax/serving/learner.py",
        "mmcl_jax/training",
        "mmcl_jax/workdir",
        "tests/chaos",
        "tests/clock_test.py",
        "tests/learner_in_python_test.py",
        "tests/preemption_test.py",
        "tests/safety_test.py",
        "tests/writers_test.py",
    ),
    # every method and variant, where a suite has one of each family
    "methods": (
        "mmcl_jax/methods",
        "mmcl_jax/models",
        "mmcl_jax/ops",
        "mmcl_jax/training",
        "tests/class_context_test.py",
        "tests/comm_test.py",
        "tests/conditioning_test.py",
        "tests/contract.py",
        "tests/ease_test.py",
        "tests/first_block_test.py",
        "tests/first_session_test.py",
        "tests/first_task_test.py",
        "tests/kept_answers_test.py",
        "tests/linear_methods_test.py",
        "tests/method_contract_test.py",
        "tests/penalties_test.py",
        "tests/prompt_methods_test.py",
        "tests/published*.py",
        "tests/rapf_test.py",
        "tests/rehearsal_test.py",
        "tests/results_test.py",
        "tests/sd_lora_test.py",
    ),
    "notebooks": ("docs/notebooks", "mmcl_jax/analysis", "tests/notebooks_test.py"),
    "plan": (
        "mmcl_jax/methods",
        "mmcl_jax/models",
        "mmcl_jax/parallel",
        "mmcl_jax/plan.py",
        "mmcl_jax/planning",
        "mmcl_jax/training",
        "tests/plan_test.py",
    ),
    # their commands, word for word
    "pages": (
        "README.md",
        "configs",
        "docs/*.md",
        "docs/tools/mkdocs.yml",
        "docs/tools/site_hooks.py",
        "launch",
        "mmcl_jax/*.py",
        "mmcl_jax/cli",
        "mmcl_jax/report",
        "tests/site_test.py",
    ),
    # pages of long streams and many runs
    "report": (
        "mmcl_jax/analysis",
        "mmcl_jax/report",
        "mmcl_jax/workdir",
        "tests/pages.py",
        "tests/report_comparison_test.py",
        "tests/report_test.py",
    ),
    "slurm": (
        "launch",
        "mmcl_jax/parallel",
        "mmcl_jax/sweep.py",
        "mmcl_jax/sweeps",
        "tests/distributed_test.py",
        "tests/slurm.py",
        "tests/slurm_test.py",
    ),
    "wheel": (
        "configs",
        "launch/setup.sh",
        "mmcl_jax/*__init__.py",
        "mmcl_jax/files.py",
        "mmcl_jax/models/assets",
        "mmcl_jax/models/pretrained",
        "mmcl_jax/report/templates",
        "pyproject.toml",
        "requirements.lock",
        "requirements.txt",
        "tests/packaging_test.py",
    ),
    # of a run, which decode for it
    "workers": (
        "mmcl_jax/parallel",
        "mmcl_jax/streams",
        "tests/loader_test.py",
        "tests/verification_test.py",
    ),
    # how hard its modalities are
    "world": (
        "configs/world.py",
        "mmcl_jax/models/assets",
        "mmcl_jax/streams/procedural.py",
        "mmcl_jax/streams/world",
        "tests/mmcl_world_test.py",
    ),
}


def add_options(parser: pytest.Parser) -> None:
    """Adds the two flags."""
    group = parser.getgroup("tests that take minutes")
    group.addoption("--full", action="store_true", help="run all of them")
    group.addoption(
        "--full-since",
        metavar="REVISION",
        help="run those of parts that changed since; all, where git does not know it",
    )


def skip(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Skips tests that are marked and not asked for."""
    marked = [(i, m.args[0]) for i in items if (m := i.get_closest_marker("full"))]
    if config.getoption("full") or not marked:
        return
    revision = config.getoption("full_since")
    names = changed(ROOT, revision) if revision else []
    for item, part in marked:
        if names is None or touches(part, names):
            continue
        why = "takes minutes: --full runs it"
        if revision:
            why = f"takes minutes, and nothing of {part} has changed since {revision}"
        item.add_marker(pytest.mark.skip(reason=why))


def changed(root: pathlib.Path, revision: str) -> list[str] | None:
    """Returns files that differ from those of a revision, or are new.

    None: the revision is not known, as in a clone of the newest commit alone.
    """
    names: list[str] = []
    for words in (
        ("diff", "--name-only", "--no-renames", revision, "--"),
        ("ls-files", "--others", "--exclude-standard"),
    ):
        try:
            done = subprocess.run(
                ["git", *words], cwd=root, capture_output=True, text=True
            )
        except FileNotFoundError:
            return None
        if done.returncode:
            return None
        names += done.stdout.splitlines()
    return names


def touches(part: str, names: Iterable[str]) -> bool:
    """Returns whether one of some files belongs to a part."""
    return any(
        fnmatch.fnmatchcase(name, place) or name.startswith(f"{place}/")
        for name in names
        for place in PARTS[part]
    )
