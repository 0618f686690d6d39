"""What every program says to wrong flags and odd folders: one line, and exit code 2."""

import json
import pathlib
from collections.abc import Callable

import pytest

from tests import helpers
from tests.pages import EXAMPLE, make_run, reseal
from tests.programs import run_each

DEMO = f"--config={helpers.REPOSITORY / 'configs' / 'demo.py'}:smoke"
FOLDERS = f"--config={helpers.REPOSITORY / 'configs' / 'folders.py'}"
REAL = f"--config={helpers.REPOSITORY / 'configs' / 'real.py'}"
PRETRAIN = f"--config={helpers.REPOSITORY / 'configs' / 'pretrain.py'}"
SWEEP = f"--sweep={helpers.REPOSITORY / 'configs' / 'sweeps' / 'world.py'}"
TUNING = f"--sweep={helpers.REPOSITORY / 'configs' / 'sweeps' / 'tuning.py'}"
FUNCTIONS = ("get_sweep", "get_config")

# by program: flags, and parts of what is said
WRONG = {
    "mmcl_jax.main": [
        (["--workdir=new", "--nope"], "Unknown command line flag 'nope'"),
        ([DEMO], "--workdir: missing"),
        (["--workdir=new"], "--config: missing", "configs/demo.py"),
        (["--workdir=file", DEMO], "--workdir: file is not a folder"),
        (["--workdir=new", "x"], "unexpected argument 'x'"),
        (
            ["--workdir=new", DEMO, "--config.method.name=com"],
            "config.method.name: 'com' is not one of ",
            "did you mean 'comm'?",
            "for a method of your own, name its file by config.method.module",
        ),
        (
            ["--workdir=new", DEMO, "--config.train.lr=1"],
            "--config.train.lr: 'lr' is not a field of the config",
            "did you mean --config.train.optimizer.learning_rate?",
        ),
        (
            ["--workdir=new", DEMO, "--train.epochs=1"],
            "Unknown command line flag 'train.epochs'",
            "did you mean --config.train.epochs?",
        ),
        (
            ["--workdir=new", DEMO, "--config.method.nmae=comm"],
            "--config.method.nmae: ",
            "did you mean 'name'?",
        ),
        (
            ["--workdir=new", DEMO, "--config.metod.name=comm"],
            "--config.metod.name: ",
            "did you mean 'method'?",
        ),
        (
            ["--workdir=new", DEMO, "--config.stream.root=DATA"],
            "--config.stream.root: 'root' is not a field of the config, but of a ",
            "stream of folders, see --config=configs/folders.py",
        ),
        (
            ["--workdir=new", DEMO, "--config.train.epochs=many"],
            "--config.train.epochs=many",
        ),
        (["--workdir=new", "--config=dmeo.py"], "--config: ", "'dmeo.py'"),
        (["--workdir=new", "--config="], "--config: no file ''"),
        (["--workdir=new", "--config=broken.py"], "broken.py, line 1: SyntaxError"),
        (["--workdir=new", "--config=raises.py"], "raises.py, line 4: AttributeError"),
        (["--workdir=new", "--config=none.py"], "none.py: no function 'get_config'"),
        (["--workdir=new", "--config=other.py"], "config: 3 is no ConfigDict"),
        (["--workdir=new", "--config=."], "--config: no file '.'"),
        (
            ["--workdir=new", DEMO[:-1]],
            "'smok' is not one of smoke",
            "did you mean 'smoke'?",
        ),
        (["--workdir=new", FOLDERS], "config.stream.root: missing"),
        (
            ["--workdir=new", FOLDERS, "--config.stream.root=/no/such/folder"],
            "/no/such/folder",
        ),
        (["--workdir=new", f"{REAL}:5"], "'5' is not one of smoke, 1, 2, 3, 4"),
        (
            ["--workdir=new", f"{REAL}:2", "--config.stream.root=pets"],
            "mmcl-real v1 needs audio/fsdd, audio/instruments",
            'make the copy as docs/data.md, section "mmcl-real v1", says',
        ),
        (
            ["--workdir=new", DEMO, "--config.encoder.path=/no/such/encoder"],
            "/no/such/encoder: no such folder",
        ),
        (["--workdir=new", DEMO, "--processes=2", "--process=0"], "--coordinator"),
        (["--workdir=new", DEMO, "--stop_after=0"], "--stop_after=0"),
    ],
    "mmcl_jax.zeroshot": [
        (["--nope"], "'nope'"),
        ([], "--config: missing"),
        ([DEMO, "--json=maybe"], "--json=maybe"),
        ([DEMO, "--config.encoder.path=/no"], "/no: no such folder"),
        ([FOLDERS, "--config.stream.root=empty"], "empty: no data set in it"),
        (
            [DEMO, "--expect=clip_b16-mnsit"],
            "--expect: 'clip_b16-mnsit' is not one of ",
            "did you mean 'clip_b16-mnist'?",
        ),
        (
            [DEMO, "--expect=clip_b16-mnist", "--config.encoder.templates=a {}"],
            "config.encoder.templates: the figure of --expect has sentences of its own",
        ),
    ],
    "mmcl_jax.verify": [
        (["--nope"], "'nope'"),
        ([], "--config: missing"),
        ([DEMO], "--out: missing"),
        ([DEMO, "--out=pets"], "--out: ", "pets exists; give a new folder"),
    ],
    "mmcl_jax.plan": [
        (["--nope"], "'nope'"),
        ([], "--config: missing"),
        ([DEMO, "--devices=x"], "--devices: 'x' is not a number"),
        ([DEMO, "--devices=0"], "--devices: '0' is not a number"),
        ([DEMO, "--devices="], "--devices: missing"),
        ([DEMO, "--chip=x"], "--chip=x", "h100"),
    ],
    "mmcl_jax.pretrain.__main__": [
        (["--nope"], "'nope'"),
        ([], "--config: missing"),
        ([PRETRAIN, "x"], "unexpected argument 'x'"),
        ([PRETRAIN, "--config.probes=many"], "--config.probes=many"),
        ([PRETRAIN, "--config.probez=1"], "'probez' is not a field", "'probes'"),
        ([PRETRAIN], "config.sources.pictures"),
    ],
    "mmcl_jax.sweep": [
        (["--nope"], "'nope'"),
        ([], "give --out, and --config and --methods or else --sweep"),
        ([DEMO, "--out=new"], "give --out, and --config and --methods"),
        ([DEMO, "--methods=comm", "--seeds=2-x", "--out=new"], "--seeds: '2-x'"),
        ([DEMO, "--methods=com", "--out=new"], "did you mean 'comm'?"),
        ([DEMO, "--methods=other.py", "--out=new"], "--methods: ", "no dict METHODS"),
        (
            [DEMO, "--config.seeds.data=1", "--methods=comm", "--out=new"],
            "--config.seeds.data: given by --seeds",
        ),
        (["--sweep=/no.py", "--out=new"], "/no.py"),
        (["--sweep=broken.py", "--out=new"], "broken.py, line 1: SyntaxError"),
        (["--sweep=raises.py", "--out=new"], "raises.py, line 2: AttributeError"),
        (["--sweep=other.py", "--out=new"], "other.py: get_sweep returns 3"),
        ([f"{SWEEP}:methods=none", "--out=new"], "'none' is not one of"),
        ([f"{TUNING}:methods=ncm", "--out=new"], "'ncm' is not one of"),
        ([f"{SWEEP}:methods=ridge", "--out=file"], "file"),
        ([SWEEP, "--out=new", "--submit"], "--submit: only with"),
    ],
    "mmcl_jax.predict": [
        (["--nope"], "'nope'"),
        (["picture.png"], "--workdir: missing"),
        (["--workdir=run"], "no files: name some"),
        (["--workdir=run", "--top=0", "x.png"], "--top=0"),
        (["--workdir=run", "--snapshot=first", "x.png"], "--snapshot=first"),
        (["--workdir=run", "--snapshot=0", "x.png"], "--snapshot=0"),
        (["--workdir=run", "x.png"], "run has no snapshot yet"),
        (["--workdir=" + "long" * 2000, "x.png"], "name too long"),
        (["--workdir=run", "--model=run", "x.png"], "--model: an export stands for"),
        (["--model=run", "x.png"], "run/model.json: no such file; expected an export"),
        (["--model=hf://name", "x.png"], "is written hf://org/name"),
    ],
    "mmcl_jax.export": [
        (["--nope"], "'nope'"),
        (["--workdir=run"], "--workdir, --out: missing"),
        (["--workdir=run", "--out=new", "x"], "unexpected argument 'x'"),
        (["--workdir=run", "--out=new", "--snapshot=0"], "--snapshot=0"),
        (["--workdir=run", "--out=new", "--push=name"], "'name' is no repository"),
        (["--workdir=run", "--out=new", "--push=org/name"], "HF_TOKEN"),
    ],
    "mmcl_jax.compare": [
        (["--nope"], "'nope'"),
        ([], "--workdirs: give one run"),
        (["--workdirs=a"], "--snapshots: one run"),
        (["--workdirs=a", "--snapshots=1,last"], "'1,last' are not numbers"),
        (["--workdirs=a,b", "--snapshots=1,2"], "at one stage"),
        (["--workdirs=a,b", "--workdirs=a,b,c"], "equally many each time"),
        (["--workdirs=/no/a,/no/b"], "/no/a: no run in it, config.json is not there"),
        (["--workdirs=a,b", "c"], "unexpected argument 'c'"),
        (["--workdirs=a,b", "--samples=1"], "--samples=1"),
        (["--workdirs=a,b", "--json=file.json"], "--json=file.json"),
    ],
    "mmcl_jax.report.__main__": [
        (["--nope"], "'nope'"),
        ([], "--workdirs: missing"),
        (["--workdirs=,"], "--workdirs: missing"),
        (["--workdirs=run", "x"], "unexpected argument 'x'"),
        (["--workdirs=/no"], "/no: no run in it, config.json is not there"),
        (["--workdirs=run,/no"], "/no: no run in it, config.json is not there"),
        (["--workdirs=run", "--out=file"], "file"),
        (["--workdirs=run", "--out=file/page.html"], "file"),
        (["--workdirs=run", "--width=0.1"], "--width=0.1"),
    ],
}


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with a run that is made up, and files that are none."""
    make_run(tmp_path / "run", EXAMPLE)
    described = json.loads((tmp_path / "run" / "stream.json").read_text())
    whole = described | {"encoder": "0" * 64, "preprocessing": {}}
    (tmp_path / "run" / "stream.json").write_text(json.dumps(whole))
    reseal(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "pets/image/pets/train/cat").mkdir(parents=True)
    (tmp_path / "pets/image/pets/train/cat/1.png").touch()
    for name, content in {
        "file": "precious",
        "broken.py": "def",
        "raises.py": "\n".join(f"def {f}(a=''):\n    return a.b" for f in FUNCTIONS),
        "other.py": "\n".join(f"def {f}(a=''):\n    return 3" for f in FUNCTIONS),
        "none.py": "",
    }.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def check(done: helpers.Finished, *parts: str) -> None:
    """Asserts that a program has refused its flags in one line with these parts."""
    assert done.errors.startswith("error: "), (done.flags, done.errors)
    assert len(done.errors.splitlines()) == 1, (done.flags, done.errors)
    assert (done.code, done.output) == (2, ""), done.flags
    for part in parts:
        assert part in done.errors, done.flags


# a file of a workdir that was spoilt, and how; each reader of a run has to name it
SPOILT: dict[str, tuple[str, Callable[[pathlib.Path], object]]] = {
    "config absent": ("config.json", pathlib.Path.unlink),
    "config empty": ("config.json", lambda path: path.write_text("")),
    "config cut": ("config.json", lambda path: path.write_text('{"stream": {')),
    "config a list": ("config.json", lambda path: path.write_text("[]")),
    "config of nothing": ("config.json", lambda path: path.write_text("{}")),
    "config no text": ("config.json", lambda path: path.write_bytes(b"\xff\xfe{")),
    "config deep": ("config.json", lambda path: path.write_text("[" * 100_000)),
    "config a folder": ("config.json", lambda path: (path.unlink(), path.mkdir())),
    "stream absent": ("stream.json", pathlib.Path.unlink),
    "stream cut": ("stream.json", lambda path: path.write_text("{")),
    "stream of nothing": ("stream.json", lambda path: path.write_text("{}")),
    "stream of words": (
        "stream.json",
        lambda path: path.write_text(
            json.dumps(dict.fromkeys(json.loads(path.read_text()), "x"))
        ),
    ),
}
READERS = {
    "mmcl_jax.predict": ["--workdir={}", "--text=a star"],
    "mmcl_jax.export": ["--workdir={}", "--out=new"],
    "mmcl_jax.compare": ["--workdirs={}", "--snapshots=1,2", "--noembeddings"],
    "mmcl_jax.report.__main__": ["--workdirs={}", "--out=new"],
}


@pytest.mark.parametrize("program", WRONG)
def test_wrong_commands_are_one_clear_line(program: str, folder: pathlib.Path) -> None:
    cases = list(WRONG[program])
    for name, (file, spoil) in SPOILT.items() if program in READERS else ():
        spoil(make_run(folder / name, EXAMPLE) / file)
        flags = [flag.format(folder / name) for flag in READERS[program]]
        cases.append((flags, str(folder / name), file))
    commands = [flags for flags, *_ in cases]
    said = run_each(program, commands, folder)
    for done, (_, *parts) in zip(said, cases, strict=True):
        check(done, *parts)
    assert not (folder / "new").exists()
    assert (folder / "file").read_text() == "precious"
