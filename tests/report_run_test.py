"""The page of a real run: during it, by the program, and in a browser."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from mmcl_jax import config
from mmcl_jax.evaluation import label_spaces
from mmcl_jax.report import accuracy, live, media, mistakes, run_data, run_loader
from mmcl_jax.training import build
from tests import fork_server, helpers
from tests.pages import check_page, heat, values


class _Run:
    """What the reporter wants of a run."""

    def __init__(self, when: str) -> None:
        self.config = config.Config(report=when)
        self.stream = self.encoder = None


@pytest.mark.parametrize(("when", "pages"), [("each_task", 2), ("end", 1), ("off", 0)])
def test_a_report_that_fails_is_one_line(when, pages, tmp_path, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(live, "_SHARE", 1e9)
    reporter = live.Reporter(tmp_path, _Run(when), said.append)
    reporter.after_stage(lambda: {})
    reporter.at_end({})
    assert len(said) == pages
    assert all(line.startswith("report.html was not written: ") for line in said)
    assert all("\n" not in line for line in said)


def test_pages_between_tasks_take_a_bounded_share_of_the_time(
    tmp_path, monkeypatch
) -> None:
    said: list[str] = []
    now = iter([0.0, 100.0, 100.0, 106.0, 110.0, 121.0, 121.0, 122.0])
    monkeypatch.setattr(live.time, "perf_counter", lambda: next(now))
    reporter = live.Reporter(tmp_path, _Run("each_task"), said.append)
    for expected in (1, 1, 2):  # 6 of 110 seconds are too much, of 121 they are not
        reporter.after_stage(lambda: {})
        assert len(said) == expected


def test_a_run_starts_without_what_draws() -> None:
    program = (
        "import sys, mmcl_jax.main; print({'matplotlib', 'jinja2'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_page_of_a_run(whole_run: helpers.Finished) -> None:
    text = (whole_run.workdir / "report.html").read_text()
    parsed = check_page(text)
    results = whole_run.results()
    for space in label_spaces.SPACES:
        for route in label_spaces.ROUTES:
            R = np.array(results["accuracy"][space][route], float)
            found = heat(text, f"accuracy-{space}-{route}")
            np.testing.assert_allclose(found, 100 * R, atol=0.051)
    stored = [
        results["metrics"][s][r]
        for s in label_spaces.SPACES
        for r in label_spaces.ROUTES
    ]
    for row, of_results in zip(
        values(text, "Metrics of the stream"), stored, strict=True
    ):
        # what needs the scores of all tasks to come has no column
        expected = [
            of_results[name]
            for name in accuracy._TITLES
            if name not in ("transfer_zscl", "average_zscl")
        ]
        np.testing.assert_array_equal(row, np.array(expected, float))
    said = " ".join(parsed.text)
    for task in results["tasks"]:
        assert task["name"] in said and all(name in said for name in task["classes"])
    for part in ("stream_hash", "not written"):
        assert part not in said
    assert results["environment"]["jax"] in said
    reasons = "no test sample was misclassified", "no classes are reserved"
    for reason in (*reasons, "no task had classes that were all learnt"):
        text = text.replace(f"Not shown: {reason}", "")
    assert "Not shown" not in text
    assert "report.html" not in (whole_run.workdir / "log.txt").read_text()


@pytest.mark.slow
def test_program_makes_the_page_that_the_run_made(whole_run, tmp_path) -> None:
    done = report(f"--workdirs={whole_run.workdir}", f"--out={tmp_path / 'one.html'}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "one.html").read_text() == (
        whole_run.workdir / "report.html"
    ).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("modality", helpers.WRITERS)
def test_samples_of_every_modality_can_be_shown(whole_run, modality: str) -> None:
    run = run_loader.load(whole_run.workdir, inside=False)
    drawn = build.build_stream(config.Config(stream=config.World(tasks=5)))
    inputs = build.pretrained.read_inputs(str(build.BUILTIN_ENCODER))
    run = dataclasses.replace(run, source=run_data.Source(drawn, inputs))
    task = next(task for task in drawn.tasks if task.modality == modality)
    example = mistakes._example(run, task.test[0].id, task.test[0].label)
    kind, start = {
        "audio": ("sound", "data:audio/mpeg;base64,"),
        "text": ("sentence", ""),
    }.get(modality, ("picture", "data:image/webp;base64,"))
    assert example.kind == kind
    assert example.content.startswith(start)
    assert 8 < len(example.content) < media.MAX_BYTES / 18


PROBE = (pathlib.Path(__file__).parent / "report_probe.js").read_text(encoding="utf-8")


def browser() -> str | None:
    """Returns a Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def probed(text: str, folder: pathlib.Path, width: int, dark: bool) -> dict[str, Any]:
    """Opens a page in a browser and returns what the probe saw."""
    path = folder / "probed.html"
    listen = "addEventListener('error', e => errors.push(e.message))"
    catch = f"<script>var errors = []; {listen}</script>"
    path.write_text(
        text.replace("<head>", f"<head>{catch}", 1).replace(
            "</body>", f"<script>{PROBE}</script></body>"
        )
    )
    done = subprocess.run(
        [
            browser(),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},900",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<script type="probe">(.*?)</script>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(found[1])


@pytest.mark.slow
@pytest.mark.skipif(browser() is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("dark", [False, True])
def test_page_in_a_browser(whole_run, tmp_path, width: int, dark: bool) -> None:
    text = (whole_run.workdir / "report.html").read_text()
    seen = probed(text, tmp_path, width, dark)
    assert seen["errors"] == []
    assert seen["dark"] == dark
    assert seen["figures"] >= 10
    assert seen["empty"] == []
    assert seen["illegible"] == []
    assert seen["sorted"] == seen["tables"] >= 3
    assert seen["overflow"] <= 0
    assert seen["shown"] == [1, 1]
    assert seen["readout"]


def report(*flags: str) -> subprocess.CompletedProcess:
    words = ["-m", "mmcl_jax.report", *flags]
    return fork_server.run(words, helpers.REPOSITORY, helpers.environment())
