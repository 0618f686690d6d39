"""Where a run is on disk: the names of all its files and folders.

No other package spells these names. The modules beside this one write and read the
files.
"""

import pathlib

# written before the first task
CONFIG = "config.json"  # resolved
STREAM = "stream.json"  # order of the tasks, classes, hashes
ENCODER = "encoder.txt"  # summary of the encoder
ADDED = "added"  # files of samples that a program held in memory
SAMPLES = "samples"  # lists of the samples of each task
LOCK = "lock"
# appended to during the run
LOG = "log.txt"
METRICS = "metrics.jsonl"  # one line per logged training step
TENSORBOARD = "tensorboard"
WANDB = "wandb"
OUTPUT = "output.txt"  # console output of a run of a sweep
# written after each stage
KEPT = "kept"  # of test samples, for when their files are gone
PREDICTIONS = "predictions"  # of each test sample; one file per stage
CALIBRATION = "calibration.json"  # temperatures of the stages
NOVELTY = "novelty.json"  # quantiles of the novelty of learnt samples, by stage
EMBEDDINGS = "embeddings.npz"  # of some test samples, by the frozen encoder
SNAPSHOTS = "snapshots"  # params, memory and results so far; one folder per stage
CHECKPOINTS = "checkpoints"  # whole states inside a stage; the last few
DAMAGED = "damaged"  # states that were set aside
REPORT = "report.html"
# written at the end
RESULTS = "results.json"


def predictions(workdir: pathlib.Path, stage: int) -> pathlib.Path:
    """Returns the file of the predictions after a stage, counted from 0."""
    return workdir / PREDICTIONS / f"{stage:03d}.npz"


def snapshot(workdir: pathlib.Path, stage: int) -> pathlib.Path:
    """Returns the folder of the state after a stage, counted from 0."""
    return workdir / SNAPSHOTS / f"{stage:03d}"


def kept(workdir: pathlib.Path, task: int) -> pathlib.Path:
    """Returns the file of what is kept of a task's test samples."""
    return workdir / KEPT / f"{task:03d}.npz"


def is_finished(workdir: pathlib.Path) -> bool:
    """Returns whether a run is finished."""
    return (workdir / RESULTS).is_file()
