"""Small files and specs that tests of data share."""

import contextlib
import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import sys
import types
from typing import Any, NamedTuple

import av
import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
import pytest
import soundfile
import tokenizers
from PIL import Image
from tokenizers import models, pre_tokenizers

from mmcl_jax.errors import DataError
from mmcl_jax.modalities.base import InputSpec, Modality, TokenizerSpec
from mmcl_jax.models import encoder as encoders
from mmcl_jax.models import pretrained, tokenizer
from mmcl_jax.models.specs import TowerSpec, clip
from tests import fork_server


def shared_data() -> pathlib.Path | None:
    """Returns the folder of real development data, or None where it is absent."""
    folder = pathlib.Path(__file__).parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


def make_tokenizer(path: pathlib.Path) -> str:
    """Writes a tokenizer of single characters and returns its path."""
    words = ["<pad>", "<end>", "<start>", "?", *"abcdefghijklmnopqrstuvwxyz "]
    model = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens(["<pad>", "<end>", "<start>"])
    tokenizer.save(str(path))
    return str(path)


def make_spec(folder: pathlib.Path, **changes: object) -> InputSpec:
    """Returns a small spec whose tokenizer lies in `folder`."""
    values = {
        "image_size": 32,
        "frames": 4,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.25, 0.25, 0.25),
        "sample_rate": 16000,
        "audio_seconds": 1.0,
        "audio_mean": -8.0,
        "audio_std": 8.0,
        "max_depth": 10.0,
        "context_length": 16,
        "tokenizer": TokenizerSpec(make_tokenizer(folder / "tokenizer.json")),
    }
    return InputSpec(**(values | changes))


def write_picture(path: pathlib.Path, variant: int = 0) -> None:
    """Writes a picture of smooth colours, other ones for another `variant`."""
    y, x = np.mgrid[:40, :49]
    channels = [x * 5, y * 6, (x + y) * (variant % 3)]
    picture = (np.stack(channels, axis=-1) + 40 * variant) % 256
    Image.fromarray(picture.astype(np.uint8)).save(path)


def write_video(path: pathlib.Path, frames: int = 30, offset: int = 0) -> None:
    """Writes a clip that grows evenly brighter but for its black top left quarter."""
    codec, pixels = ("gif", "rgb8") if path.suffix == ".gif" else ("mpeg4", "yuv420p")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pixels
        for level in np.linspace(offset, 255, frames):
            grey = np.full((32, 48, 3), level, np.uint8)
            grey[:16, :24] = 0
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def sine(hertz: float, seconds: float, rate: int) -> np.ndarray:
    """Returns a sine of amplitude 0.5, float32 `[seconds * rate]`."""
    times = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def write_sound(path: pathlib.Path, variant: int = 0) -> None:
    """Writes half a second of a tone, another one for another `variant`."""
    soundfile.write(path, sine(500 * (variant + 1), 0.5, 8000), 8000)


def write_depth(path: pathlib.Path, variant: int = 0) -> None:
    """Writes a depth map of a box before a slope, with a hole in it."""
    depth = np.linspace(2000, 3000, 40 * 50).reshape(40, 50).astype(np.uint16)
    depth[10:30, 10 + variant : 30 + variant] = 800
    depth[15:20, 15:20] = 0
    Image.fromarray(depth).save(path)


def write_text(path: pathlib.Path, variant: int = 0) -> None:
    """Writes a sentence."""
    path.write_text(f"sentence {'abc'[variant % 3]}", encoding="utf-8")


WRITERS = {
    "image": (".png", write_picture),
    "video": (".mp4", lambda path, variant: write_video(path, offset=40 * variant)),
    "audio": (".wav", write_sound),
    "depth": (".png", write_depth),
    "text": (".txt", write_text),
}


def write(folder: pathlib.Path, modality: str, variant: int = 0) -> str:
    """Writes a small file of a modality and returns its path."""
    suffix, writer = WRITERS[modality]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{variant}{suffix}"
    writer(path, variant)
    return str(path)


def decode_error(kind: Modality, path: pathlib.Path, spec: InputSpec) -> str:
    """Returns the message of the error that decoding raises; it names the path."""
    with pytest.raises(DataError) as caught:
        kind.decode(str(path), spec)
    assert str(path) in str(caught.value)
    return str(caught.value)


def cut(path: str, target: pathlib.Path, part: float = 0.6) -> pathlib.Path:
    """Writes the first part of a file to another place and returns that."""
    data = pathlib.Path(path).read_bytes()
    target.write_bytes(data[: int(len(data) * part)])
    return target


def make_encoder(folder: pathlib.Path) -> pathlib.Path:
    """Writes a tiny encoder whose every weight is random, and returns its folder."""
    tower = TowerSpec(
        width=16,
        layers=2,
        heads=2,
        mlp_width=32,
        activation="quick_gelu",
        norm_epsilon=1e-5,
    )
    words = tokenizer.train(["a photo of a spinning red star"], vocabulary=300)
    words.save(str(folder / "tokenizer.json"))
    spec = clip(
        visual=tower,
        text=tower,
        embedding=16,
        image_size=16,
        patch_size=8,
        vocabulary=words.get_vocab_size(),
        context_length=24,
        end_token=words.token_to_id("<end>"),
    )
    rng = np.random.default_rng(0)
    # zero biases and scales of one would hide a mistaken use of them
    frozen = jax.tree.map(
        lambda w: np.asarray(w + 0.1 * rng.standard_normal(w.shape), np.float32),
        encoders.init(jax.random.key(0), spec),
    )
    preprocessing = {
        "frames": 2,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.25, 0.25, 0.25),
        "sample_rate": 8000,
        "audio_seconds": 0.5,
        "audio_mean": -8.0,
        "audio_std": 4.0,
        "max_depth": 10.0,
    }
    pretrained.save(folder, spec, frozen, preprocessing)
    return folder


REPOSITORY = pathlib.Path(__file__).parents[1]


def load_tool(name: str) -> types.ModuleType:
    """Returns a program of docs/tools, which are no package, as a module."""
    path = REPOSITORY / "docs" / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def get_config(path: pathlib.Path, argument: str = "") -> ml_collections.ConfigDict:
    """Returns what a config file makes of the argument behind its colon."""
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


class Finished(NamedTuple):
    """What a program that ended left behind.

    Attributes:
        code: its exit code.
        output: its standard output.
        errors: its standard error.
        workdir: of a run.
        flags: it was given, but for the workdir.
    """

    code: int
    output: str
    errors: str
    workdir: pathlib.Path
    flags: tuple[str, ...]

    def results(self) -> dict[str, Any]:
        """Returns what `results.json` holds, but for its checksum and its run."""
        return results(self.workdir)


def results(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns what `results.json` holds, but for its checksum and its run."""
    stored = json.loads((workdir / "results.json").read_text())
    return {k: v for k, v in stored.items() if k not in ("checksum", "run")}


class Started(NamedTuple):
    """A program on its way."""

    process: subprocess.Popen[str] | fork_server.Process
    workdir: pathlib.Path
    flags: tuple[str, ...]

    def finish(self, seconds: float = 900) -> Finished:
        """Waits for its end."""
        try:
            output, errors = self.process.communicate(timeout=seconds)
        finally:
            self.process.kill()
        return Finished(
            self.process.returncode, output, errors, self.workdir, self.flags
        )


def environment(devices: int = 1) -> dict[str, str]:
    """Returns the variables of a program that a test starts."""
    count = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}",
        "JAX_COMPILATION_CACHE_DIR": os.environ["MMCL_JAX_TEST_PROGRAMS"],
        "PYTHONPATH": str(REPOSITORY),
        "COLUMNS": "120",
    }


def start(
    *args: str,
    flags: tuple[str, ...],
    workdir: pathlib.Path,
    devices: int = 1,
    fresh: bool = False,
) -> Started:
    """Starts `python *args *flags` in the repository, on simulated CPU devices.

    `fresh` asks for an interpreter of its own instead of the fork of a shared one.
    """
    words, variables = [*args, *flags], environment(devices)
    if not fresh:
        forked = fork_server.Process(words, REPOSITORY, variables)
        return Started(forked, workdir, flags)
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=REPOSITORY,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Started(process, workdir, flags)


def start_run(
    *flags: str, workdir: pathlib.Path, devices: int = 1, fresh: bool = False
) -> Started:
    """Starts the real command."""
    main = ("-m", "mmcl_jax.main", f"--workdir={workdir}")
    return start(*main, flags=flags, workdir=workdir, devices=devices, fresh=fresh)


def free_ports(number: int) -> list[int]:
    """Returns ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def start_together(
    *flags: str, workdir: pathlib.Path, processes: int = 2
) -> list[Started]:
    """Starts the real command as several processes of one run."""
    (port,) = free_ports(1)
    joined = (f"--coordinator=localhost:{port}", f"--processes={processes}")
    return [
        start_run(*flags, *joined, f"--process={i}", workdir=workdir)
        for i in range(processes)
    ]


def run(
    *flags: str, workdir: pathlib.Path, devices: int = 1, fresh: bool = False
) -> Finished:
    """Runs the real command."""
    return start_run(*flags, workdir=workdir, devices=devices, fresh=fresh).finish()


def told(text: str) -> list[str]:
    """Returns the lines that a run says, but for those that it says once a minute."""
    return [line for line in text.splitlines() if " % of all samples, " not in line]


def predictions(workdir: pathlib.Path, stage: int) -> dict[str, np.ndarray]:
    """Returns the stored columns of a stage."""
    with np.load(workdir / "predictions" / f"{stage:03d}.npz") as columns:
        return dict(columns)


def snapshot(workdir: pathlib.Path, stage: int) -> dict[str, np.ndarray]:
    """Returns the arrays of a stored snapshot by their path, whoever wrote it."""
    folder = workdir.resolve() / "snapshots" / f"{stage:03d}" / "state"
    with ocp.PyTreeCheckpointer() as reader:
        there = reader.metadata(folder).item_metadata.tree
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), there)
        tree = reader.restore(folder, restore_args=plain)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
