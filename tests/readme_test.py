"""What the README and docs/ say is so: every command runs, every name exists."""

import contextlib
import dataclasses
import hashlib
import itertools
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from ast import literal_eval
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from flax import traverse_util

from mmcl_jax.cli import command_line, reference
from mmcl_jax.evaluation import metrics
from mmcl_jax.methods.comm.method import Options as CommOptions
from mmcl_jax.methods.registry import METHODS
from tests import config_reference_test, fork_server, helpers, shared

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
# what they say is followed word for word, from the first line to the last
GUIDES = ("docs/data.md", "docs/extending.md")
OWN_CODE = (
    "config.method.module",
    "config.method.options",
    "config.data.modality_modules",
)
# continuous integration runs these itself
RUN_BY_CI = ("bash launch/test.sh",)
MAIN, SWEEP = "mmcl_jax.main", "launch/sweep.py"
READS = ("mmcl_jax.compare", "mmcl_jax.report")
USES = ("mmcl_jax.predict", "mmcl_jax.export", "mmcl_jax.extend")  # a run's workdir
ALONE = (
    *("mmcl_jax.pretrain", "mmcl_jax.zeroshot", "mmcl_jax.plan", "mmcl_jax.sweep"),
    *("mmcl_jax.cli.config", "mmcl_jax.verify"),
)
# bench_test.py runs these at the same size
RUN_BY_BENCH_TEST = ("tests.bench.towers", "tests.bench.methods", "tests.bench.gpu")
BENCHES = (
    *RUN_BY_BENCH_TEST,
    *("tests.bench.feed", "tests.bench.growth", "tests.bench.extensions"),
)
PROGRAMS = (MAIN, *ALONE, *READS, *USES, *BENCHES)
# these need a cluster, or build for one: launch_test.py and slurm_test.py try what they
# start, here the files that they name are looked for
NEED_A_CLUSTER = ("sbatch", "kubectl", "docker", "bash launch/tpu_pod.sh")
LABELS_SOUNDS = ("docs/predict.md",)
BANKING = ("balance", "bill", "card", "loan")


def blocks(language: str) -> list:
    """Returns code blocks of a language, but of guides, as parameters of a test."""
    pattern = rf"^```{language}\n(.*?)^```"
    return [
        pytest.param(found[1], id=f"{name}:{text[: found.start()].count(chr(10)) + 1}")
        for name, text in PAGES.items()
        if name not in GUIDES
        for found in re.finditer(pattern, text, re.DOTALL | re.MULTILINE)
    ]


def commands(block: str) -> list[list[str]]:
    """Returns the words of each command of a block."""
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def needs_a_cluster(words: list[str]) -> bool:
    """Returns whether a command is for a machine that a test does not have."""
    return any(words[: len(c.split())] == c.split() for c in NEED_A_CLUSTER)


def of_pages() -> dict[str, list[list[str]]]:
    """Returns the commands of each page that a test runs, in their order."""
    found = {}
    for block in blocks("bash"):
        for words in commands(block.values[0]):
            elsewhere = words[0] == "bash" or set(words) & set(RUN_BY_BENCH_TEST)
            if not elsewhere and not needs_a_cluster(words):
                found.setdefault(block.id.partition(":")[0], []).append(words)
    return found


def column(page: str, heading: str, index: int = 0) -> list[str]:
    """Returns a column of the first table below a heading, without its title."""
    below = PAGES[page].split(f"\n{heading}\n", 1)[1]
    table = re.search(r"^\|.*?\n(?!\|)", below, re.DOTALL | re.MULTILINE)[0]
    rows = table.strip().splitlines()[2:]
    return [row.split("|")[1 + index].strip() for row in rows]


def names(page: str, heading: str) -> list[str]:
    """Returns what stands in back quotes in the first column of a table."""
    return re.findall(r"`([^`]+)`", " ".join(column(page, heading)))


def test_every_command_can_be_told_apart():
    found = [line for p in blocks("bash") for line in commands(p.values[0])]
    assert len(found) > 5
    for words in found:
        known = words[:2] == ["python", "-m"] and words[2] in PROGRAMS
        known = known or words[:2] == ["python", SWEEP]
        assert (
            known
            or words[:2] == ["bash", "launch/local.sh"]
            or (shlex.join(words) in RUN_BY_CI)
            or needs_a_cluster(words)
        ), f"nothing runs the command {shlex.join(words)!r}"


def pages() -> list:
    """Returns pages with commands; those of the README are tried in every suite."""
    parts = {
        "docs/encoders.md": "encoders",
        "docs/performance.md": "benches",
    }
    return [
        pytest.param(
            page,
            marks=[pytest.mark.full(parts.get(page, "pages"))] * (page != "README.md"),
        )
        for page in of_pages()
    ]


@pytest.mark.parametrize("page", pages())
def test_commands_run(
    page: str, tmp_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory
):
    write_data(tmp_path / "DATA")
    write_more(tmp_path / "NEW")
    link(tmp_path)
    for words in of_pages()[page]:
        short = smoke(words, page)
        if (rest := alone(short)) is None:
            run_short(short, tmp_path)
        else:
            done = run_once(rest, tmp_path_factory)
            shutil.copytree(done, tmp_path / str(flag(words, "--workdir")))


def alone(words: list[str]) -> list[str] | None:
    """Returns a run's command without its workdir; None if it needs more of a page."""
    rest = [word for word in words if not word.startswith("--workdir=")]
    config = flag(words, "--config") or ""
    whole = MAIN in words and len(rest) < len(words) and not flag(words, "--stop_after")
    made = whole and re.match(r"configs/(demo|world|clip|languagebind)\.py", config)
    return rest if made and "runs/" not in shlex.join(rest) else None


def run_once(words: list[str], factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns the workdir of a run that several pages have."""

    def make(path: pathlib.Path) -> None:
        link(path)
        run_short([*words, "--workdir=run"], path)

    name = hashlib.sha256(shlex.join(words).encode()).hexdigest()[:16]
    return shared.folder(factory, name, make) / "run"


def link(folder: pathlib.Path) -> None:
    """Lets commands find what they name of the repository."""
    for name in ("configs", "launch"):
        (folder / name).symlink_to(ROOT / name)


def test_the_first_command_runs(tmp_path: pathlib.Path):
    if not (ROOT / ".venv" / "installed-run").exists():
        pytest.skip("launch/local.sh has not installed anything here")
    flags = smoke(["", "--config=configs/demo.py", "--workdir=runs/demo"], "README.md")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    run_short(["bash", str(ROOT / "launch" / "local.sh"), *flags[1:]], tmp_path)


def run_short(
    words: list[str], folder: pathlib.Path, environment: dict[str, str] | None = None
) -> None:
    """Runs a command; what a run leaves is what the README lists."""
    environment = environment or helpers.environment()
    # pytest wants to import by itself what it checks
    if words[0] == sys.executable and "pytest" not in words:
        done = fork_server.run(words[1:], folder, environment, merged=True)
    else:
        done = subprocess.run(
            words,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
        )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}"
    workdir = flag(words, "--workdir")
    if workdir and not set(words) & set(USES) and not flag(words, "--stop_after"):
        there = {path.name for path in (folder / workdir).iterdir()}
        listed = names("docs/running.md", "## What a run writes")
        assert there == {name.rstrip("/") for name in listed}


@pytest.mark.full("pages")
@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES)
def test_guides_are_followed_word_for_word(page: str, tmp_path: pathlib.Path):
    if "tensorflow_datasets" in PAGES[page]:
        pytest.importorskip("tensorflow_datasets", reason="a guide prepares data")
    for name in ("configs", "launch", "tests", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_downloads(tmp_path)
    files = re.findall(r"^```\w+ (\S+)\n(.*?)^```", PAGES[page], re.S | re.M)
    script = "\n".join(re.findall(r"^```bash\n(.*?)^```", PAGES[page], re.S | re.M))
    assert files and script
    for name, text in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    follow(script, tmp_path)


def follow(script: str, folder: pathlib.Path) -> None:
    """Runs the commands of a guide as a shell does, with its settings of variables."""
    exported = helpers.environment()
    for words in commands(script):
        given = list(
            itertools.takewhile(lambda word: re.match(r"[A-Z_]+=", word), words)
        )
        variables = dict(word.split("=", 1) for word in given)
        program, *arguments = words[len(given) :]
        if program == "export":
            exported |= dict(word.split("=", 1) for word in arguments)
            continue
        assert program == "python", f"nothing runs the command {shlex.join(words)!r}"
        run_short([sys.executable, *arguments], folder, exported | variables)


def write_downloads(root: pathlib.Path) -> None:
    """Writes a little of what the guide to data says is downloaded by hand."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for place, name in enumerate(("dog", "rain")):
        for fold in (1, 5):
            path = helpers.write(root / "ESC-50/audio", "audio", 2 * place + fold)
            rows.append(f"{pathlib.Path(path).name},{fold},{place},{name},False,1,A")
        for part in ("train", "val"):
            helpers.write(root / "NYU" / part / "depth" / name, "depth", place)
        frame = root / "SUN/SUNRGBD/kv1" / name
        helpers.write(frame / "depth", "depth", place)
        (frame / "scene.txt").write_text(name)
        (root / "UCF" / name).mkdir(parents=True)
        for part in ("train", "test"):
            (root / "UCF" / name / f"{part}.avi").touch()
    lists = root / "UCF/ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 dog\n2 rain\n")
    (lists / "trainlist01.txt").write_text("dog/train.avi 1\nrain/train.avi 2\n")
    (lists / "testlist01.txt").write_text("dog/test.avi\nrain/test.avi\n")
    (root / "ESC-50/meta").mkdir()
    (root / "ESC-50/meta/esc50.csv").write_text("\n".join(rows) + "\n")


def test_commands_for_clusters_name_files_that_are_there():
    found = [line for p in blocks("bash") for line in commands(p.values[0])]
    found = [words for words in found if needs_a_cluster(words)]
    assert {words[0] for words in found} == {c.split()[0] for c in NEED_A_CLUSTER}
    for words in found:
        named = [w.rpartition("=")[2].partition(":")[0] for w in words]
        named = [w for w in named if w.startswith(("launch/", "configs/"))]
        assert named or "runs/" in shlex.join(words) or words[1] == "push"
        for name in named:
            assert (ROOT / name).is_file(), name


def smoke(words: list[str], page: str) -> list[str]:
    """Returns the short form of a command of a page."""
    tiny = ["--size=tiny"] if set(words) & set(BENCHES) else []
    words = [sys.executable, *words[1:], *tiny]
    short = [re.sub(r"^(--\w+=\S+?\.py):?(?:smoke,?)?", add_smoke, w) for w in words]
    short = [re.sub(r"^--seeds=.*", "--seeds=0", w) for w in short]
    made_up = r"configs/(demo|world|languagebind)\.py"
    if re.search(made_up, flag(words, "--config") or ""):
        # a program is compiled for each modality, which is most of a short run
        modalities = "image,audio,text" if page in LABELS_SOUNDS else "image,text"
        few = {
            "--config.stream.modalities": modalities,
            "--config.stream.tasks": 3,
        }
        short += [f"{key}={few[key]}" for key in few if not flag(words, key)]
    return short


def add_smoke(found: re.Match) -> str:
    """Returns the beginning of a flag that names a Python file, with the variant."""
    more = found.string[found.end() :]
    return f"{found[1]}:smoke" + ("," if more else "")


def flag(words: list[str], name: str) -> str | None:
    """Returns the value of a flag, or None."""
    values = [w.partition("=")[2] for w in words if w.startswith(f"{name}=")]
    return values[0] if values else None


def write_data(root: pathlib.Path) -> None:
    """Writes files for the README's example of a reader's own data."""
    for i, name in enumerate(("cat", "dog")):
        for part in ("train", "test"):
            for k in range(2):
                folder = root / "image" / "animals" / part / name
                helpers.write(folder, "image", 2 * k + i)
    for i, name in enumerate(("wren", "owl")):
        for k in range(3):
            helpers.write(root / "audio/birds/train" / name, "audio", 2 * k + i)
    folder = root / "text" / "banking"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        rows = [
            f"what about my {name}? {part} {k},{name}" for name in BANKING for k in "ab"
        ]
        (folder / f"{part}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")


def write_more(root: pathlib.Path) -> None:
    """Writes what a run is extended by: a class of pictures, and depth maps."""
    for modality, name in (("image", "bird"), ("depth", "hand"), ("depth", "foot")):
        for k in range(3):
            folder = root / modality / "more" / "train" / name
            helpers.write(folder, modality, 2 * k + len(name))


def test_the_readmes_layout_is_the_one_that_is_tried(tmp_path):
    write_data(tmp_path / "DATA")
    (layout,) = [p.values[0] for p in blocks("text") if p.id.startswith("README")]
    paths = [line.split()[0] for line in layout.splitlines() if line.startswith("  ")]
    assert len(paths) > 3
    for path in paths:
        assert (tmp_path / "DATA" / path).parent.is_dir()
    for path in [path for path in paths if path.endswith(".csv")]:
        assert (tmp_path / "DATA" / path).is_file()


def test_methods_are_listed_with_a_reference():
    assert names("README.md", "## Methods") == list(METHODS)
    cited = column("README.md", "## Methods", 2)
    for name, source in zip(METHODS, cited, strict=True):
        assert source or name == "joint"


def test_metrics_are_listed():
    reported = [*metrics.METRICS, "forward_transfer", "excess_forgetting"]
    listed = names("docs/metrics.md", "## In `results.json`")
    assert listed == list(dict.fromkeys(reported))
    for name in names("docs/metrics.md", "## In the module"):
        assert callable(getattr(metrics, name))


def test_switches_are_those_of_the_code():
    defaults = dataclasses.asdict(CommOptions())
    choices = {
        name: get_args(hint)
        for name, hint in get_type_hints(CommOptions).items()
        if get_origin(hint) is Literal
    }
    assert names("docs/method.md", "## Switches") == list(defaults)
    shown = column("docs/method.md", "## Switches", 1)
    for (name, value), text in zip(defaults.items(), shown, strict=True):
        text = text.strip("`")
        assert value == (text if text in choices.get(name, ()) else literal_eval(text))
    for among in choices.values():
        for choice in among:
            assert f"`{choice}`" in PAGES["docs/method.md"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text("utf-8").lower(), re.M)
            plain = [re.sub(r"[^\w -]", "", heading) for heading in headings]
            assert anchor in [heading.replace(" ", "-") for heading in plain], target


def test_every_page_is_found_from_the_readme():
    pages = {name for name in PAGES if name.startswith("docs/")}
    listed = " ".join(column("README.md", "## Documentation"))
    assert set(re.findall(r"\]\(([^)]+)\)", listed)) == pages


def test_every_module_has_its_place_in_the_design():
    rooms = PAGES["docs/design.md"].split("\n## Rooms\n", 1)[1]
    package = ROOT / "mmcl_jax"
    modules = [*package.glob("*.py"), *(package / "report").glob("*.py")]
    own = {path.name for path in modules if not path.name.startswith("__")}
    assert own <= set(re.findall(r"\b[a-z]\w*\.py", rooms))
    there = {path.name for path in package.rglob("*.py")}
    assert set(re.findall(r"\b[a-z]\w*\.py", rooms)) <= there


def keys_of_pretraining() -> set[str]:
    """Returns the names of what `python -m mmcl_jax.pretrain` is configured by."""
    found = helpers.get_config(ROOT / "configs" / "pretrain.py").to_dict()
    flat = traverse_util.flatten_dict(found, sep=".")
    return {f"config.{key}" for key in flat}


def test_keys_that_pages_name_are_there():
    keys = {row.key for _, _, rows in reference.sections() for row in rows}
    keys |= keys_of_pretraining()
    sections = {key.rsplit(".", i)[0] for key in keys for i in (1, 2, 3)}
    for name, text in PAGES.items():
        for key in re.findall(r"(?<![\w./])(?:--)?(config(?:\.[a-z_0-9]+)+)", text):
            if key.startswith("config.method.options."):  # of a guide's own method
                continue
            if not key.endswith((".json", ".py", ".md", ".yaml")):
                assert key in keys | sections, f"{name}: {key}"


def test_flags_that_pages_give_have_values_that_are_taken():
    rows = {row.key: row for _, _, found in reference.sections() for row in found}
    flags = {
        found
        for text in PAGES.values()
        for found in re.findall(
            r"--(config(?:\.\w+)+)=(\"[^\"]+\"|'[^']+'|[^\s`]+)", text
        )
    }
    assert len(flags) > 15
    pretraining = keys_of_pretraining() - set(rows)
    for key, value in flags:
        (value,) = shlex.split(value)
        if key in OWN_CODE or key in pretraining:
            continue  # the guides are followed; pre-training has no reference
        if rows[key].kind.startswith(("some", "list")):
            value = command_line.ListParser().parse(value)
        else:
            with contextlib.suppress(ValueError, SyntaxError):  # of a text
                value = literal_eval(value)
        config_reference_test.resolved(rows[key], value)


def test_messages_that_the_answers_quote_are_those_of_the_code():
    code = "".join(path.read_text("utf-8") for path in ROOT.glob("mmcl_jax/**/*.py"))
    code = re.sub(r'"\s*\n?\s*f?"', "", code)  # of strings over several lines
    quoted = re.findall(r"^### `([a-z ]+ [a-z ]+)`", PAGES["docs/faq.md"], re.M)
    assert len(quoted) > 4
    for message in quoted:
        assert message in code
