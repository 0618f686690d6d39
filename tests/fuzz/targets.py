"""What is fuzzed: how valid files are made, and what reads them."""

import gzip
import json
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
import soundfile
from PIL import Image

from mmcl_jax import config
from mmcl_jax.errors import DataError, Faults
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.modalities.base import TextReference, TokenizerSpec
from mmcl_jax.modalities.tokenization import load_tokenizer
from mmcl_jax.models import pretrained, tokenizer
from mmcl_jax.models.pretrained import tensors
from mmcl_jax.models.pretrained.mapped import DTYPES
from mmcl_jax.streams import manifest, parquet
from mmcl_jax.streams.table_files import read_table
from mmcl_jax.sweeps import aggregate, runs
from tests import helpers, odd_files, torch_archive_test
from tests.pages import EXAMPLE, make_run

_INDEX = "model.safetensors.index.json"


class Target(NamedTuple):
    """A decoder or parser.

    Attributes:
        seeds: writes valid files into a folder.
        read: reads the file of a name in that folder, as a run would.
    """

    seeds: Callable[[pathlib.Path], None]
    read: Callable[[pathlib.Path, str], None]


def _pictures(folder: pathlib.Path) -> None:
    helpers.write_picture(folder / "colour.png")
    helpers.write_picture(folder / "colour.jpg")
    picture = Image.open(folder / "colour.png")
    picture.convert("P").save(folder / "palette.png", transparency=0)
    picture.convert("LA").save(folder / "alpha.png")
    picture.convert("CMYK").save(folder / "print.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif, progressive=True)
    picture.convert("1").save(folder / "bits.png")
    for name in ("small.webp", "plain.bmp", "plain.tif", "small.avif"):
        picture.save(folder / name)
    picture.save(folder / "packed.tif", compression="tiff_lzw")


def _clips(folder: pathlib.Path) -> None:
    for name in ("clip.mp4", "clip.mov", "clip.mkv", "clip.avi", "clip.gif"):
        helpers.write_video(folder / name, frames=6)


def _sounds(folder: pathlib.Path) -> None:
    helpers.write_sound(folder / "mono.wav")
    helpers.write_sound(folder / "mono.ogg")
    helpers.write_sound(folder / "mono.flac")
    helpers.write_sound(folder / "mono.mp3")
    helpers.write_sound(folder / "mono.aiff")
    for form, name in (("ipod", "mono.m4a"), ("adts", "mono.aac")):
        (folder / name).write_bytes(odd_files.streams(form, "aac"))
    stereo = np.stack([helpers.sine(500, 0.2, 44100), helpers.sine(900, 0.2, 44100)], 1)
    soundfile.write(folder / "stereo.wav", stereo, 44100, subtype="FLOAT")
    soundfile.write(folder / "wide.wav", stereo, 44100, "PCM_24", format="WAVEX")
    soundfile.write(folder / "stereo.flac", stereo, 44100, subtype="PCM_24")


def _depths(folder: pathlib.Path) -> None:
    helpers.write_depth(folder / "room.png")
    helpers.write_depth(folder / "hall.png", variant=3)
    Image.fromarray(np.full((1, 9), 700, np.uint16)).save(folder / "line.png")
    helpers.write_depth(folder / "room.tif")
    (folder / "room.npy").write_bytes(odd_files.npy(odd_files.depth() / 1000))
    (folder / "room.pfm").write_bytes(odd_files.pfm(odd_files.depth() / 1000))


def _sentences(folder: pathlib.Path) -> None:
    (folder / "plain.txt").write_text("a sentence of words", encoding="utf-8")
    (folder / "marked.txt").write_text("größer \N{CAT} <end>", encoding="utf-8-sig")


def _tables(folder: pathlib.Path) -> None:
    rows = [f'"words, {i} of ""it""",{"uv"[i % 2]},{i}' for i in range(40)]
    text = "\r\n".join(["text,label,more", *rows])
    (folder / "train.csv").write_text(text, encoding="utf-8-sig", newline="")
    lines = 'label,text\na,"two\nlines"\nb_c,größer\n'
    (folder / "test.csv").write_text(lines, encoding="utf-8")
    rows = [{"text": f"größer {i}", "label": "uv"[i % 2], "id": i} for i in range(20)]
    lines = "\n".join(map(json.dumps, rows))
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")


def _manifests(folder: pathlib.Path) -> None:
    for name in ("one", "two", "three", "four"):
        (folder / f"{name}.txt").write_text(f"sentence {name}", encoding="utf-8")
    rows = ["one.txt,uv,text", "./two.txt,uv,text", "three.txt,w,text"]
    text = "\r\n".join(["path,label,modality", *rows, "four.txt,w,text"])
    (folder / "short.csv").write_text(text, encoding="utf-8-sig", newline="")
    rows = [
        'größer,one.txt,train,text,"a, b",1',
        'größer,two.txt,test,text,"a, b",2',
        'klein,three.txt,train,text,"a, b",3',
        'klein,four.txt,test,text,"a, b",4',
    ]
    text = "\n".join(["label,path,split,modality,dataset,more", *rows, ""])
    (folder / "whole.csv").write_text(text, encoding="utf-8")


def _shards_of_rows(folder: pathlib.Path) -> None:
    """Writes a data set of pictures as Parquet and as Arrow."""
    helpers.write_picture(folder / "picture.png")
    content = (folder / "picture.png").read_bytes()
    (folder / "picture.png").unlink()
    label = {"names": ["u", "v"], "_type": "ClassLabel"}
    held = {"image": {"_type": "Image"}, "label": label}
    rows = [
        {"image": {"bytes": content, "path": f"{i}.png"}, "label": i % 2}
        for i in range(6)
    ]
    info = {"huggingface": json.dumps({"info": {"features": held}})}
    table = pa.Table.from_pylist(rows).replace_schema_metadata(info)
    pq.write_table(table, folder / "train.parquet", row_group_size=2)
    with pa.OSFile(str(folder / "train.arrow"), "wb") as file:
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=2)


def _read_shard(folder: pathlib.Path, name: str) -> None:
    spec = helpers.make_spec(folder.parent)
    with tempfile.TemporaryDirectory() as place:
        alone = pathlib.Path(place) / "data"
        alone.mkdir()
        shutil.copy(folder / name, alone)
        if name.endswith(".arrow"):
            state = {"_data_files": [{"filename": name}], "_split": "train"}
            (alone / "state.json").write_text(json.dumps(state))
        faults = Faults()
        try:
            stream = parquet.build(
                paths=[str(alone)], test="", classes_per_task=2, faults=faults
            )
            faults.check()
            for record in (*stream.tasks[0].train, *stream.tasks[0].test):
                record.reference.identity()
                record.reference.load(MODALITIES["image"], spec)
        except DataError as error:
            # a fault of the whole data set names its folder
            message = str(error).replace(str(alone), str(folder / name))
            raise DataError(message) from error


def _encoder(folder: pathlib.Path) -> None:
    helpers.make_encoder(folder)


def _shards(folder: pathlib.Path) -> None:
    shard_of = {}
    for i, dtype in enumerate(("float32", jnp.bfloat16, "int64")):
        name = f"model-{i}.safetensors"
        values = {f"layers.{i}.w": np.ones((9, 9), dtype), f"b{i}": np.zeros(4, dtype)}
        safetensors.numpy.save_file(values, folder / name)
        shard_of |= dict.fromkeys(values, name)
    (folder / _INDEX).write_text(json.dumps({"weight_map": shard_of}))


def _torch_archives(folder: pathlib.Path) -> None:
    written = torch_archive_test.FIXTURE
    shutil.copy(written, folder / "torch.pt")
    with zipfile.ZipFile(folder / "hand.pt", "w") as archive:
        values = {"w": torch_archive_test.tensor(), "n": torch_archive_test.number(7)}
        program = torch_archive_test.program(torch_archive_test.state(**values))
        archive.writestr("hand/data.pkl", program)
        archive.writestr("hand/data/0", bytes(24))
    body = torch_archive_test.state(w=torch_archive_test.tensor())
    torch_archive_test.old_file(folder / "old.pt", body)


def _arrays(folder: pathlib.Path) -> None:
    values = {
        "params/img/kernel": np.arange(99.0).reshape(9, 11),
        "params/t": np.float32(2),
        "params/txt/b": np.ones(5, jnp.bfloat16),
        "params/f": np.asfortranarray(np.ones((2, 3), np.int32)),
    }
    np.savez(folder / "stored.npz", **values)
    np.savez_compressed(folder / "deflated.npz", **values)


def _configs(folder: pathlib.Path) -> None:
    text = config.to_json(config.Config())
    (folder / "config.json").write_text(text)
    folders = config.Config(stream=config.Folders(root="data"))
    (folder / "folders.json").write_text(config.to_json(folders))


def _results(folder: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        made = make_run(pathlib.Path(place) / "run", EXAMPLE)
        for path in made.glob("*.json"):
            shutil.copy(path, folder)


def _media(modality: str) -> Callable[[pathlib.Path, str], None]:
    kind = MODALITIES[modality]

    def read(folder: pathlib.Path, name: str) -> None:
        place = folder.parent / "spec"
        place.mkdir(exist_ok=True)
        for style in kind.styles:
            spec = helpers.make_spec(place, style=style, mel_frames=60)
            inputs = kind.preprocess(kind.decode(str(folder / name), spec), spec)
            for key, (shape, dtype) in kind.shapes(spec).items():
                assert (inputs[key].shape, inputs[key].dtype) == (shape, dtype)
                assert np.isfinite(inputs[key]).all()

    return read


def _read_table(folder: pathlib.Path, name: str) -> None:
    faults = Faults()
    for label, rows in read_table(folder / name, folder, faults).items():
        assert label.strip()
        assert all(row.text.strip() for row in rows if isinstance(row, TextReference))
    faults.check()


def _read_manifest(folder: pathlib.Path, name: str) -> None:
    if not name.endswith(".txt"):
        faults = Faults()
        path = str(folder / name)
        stream = manifest.build(path=path, classes_per_task=2, faults=faults)
        faults.check()
        assert all(task.train and task.test for task in stream.tasks)


def _read_encoder(folder: pathlib.Path, name: str) -> None:
    del name
    load_tokenizer.cache_clear()
    encoder = pretrained.load(folder)
    text = MODALITIES["text"]
    tokens = text.preprocess("a photo of a star", encoder.inputs)["tokens"]
    assert tokens.max() < encoder.spec.text.vocabulary


def _read_tensors(folder: pathlib.Path, name: str) -> None:
    for tensor in tensors.read(folder / name).values():
        assert tensor.dtype in DTYPES
        assert len(tensor.tobytes()) == tensor.nbytes


def _read_shards(folder: pathlib.Path, name: str) -> None:
    del name
    _read_tensors(folder, _INDEX)


def _tokenizers(folder: pathlib.Path) -> None:
    """Writes CLIP's three forms, with a table of 40 merges."""
    words = tokenizer.train(["a photo of a red star"], vocabulary=300)
    merges = json.loads(words.to_str())["model"]["merges"]
    lines = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges[:40]), ""])
    (folder / "table.txt").write_text(lines, encoding="utf-8")
    (folder / "table.txt.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "merges.txt").write_text(lines, encoding="utf-8")
    vocabulary = words.get_vocab() | {"<|startoftext|>": 300, "<|endoftext|>": 301}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))


def _read_tokenizer(folder: pathlib.Path, name: str) -> None:
    load_tokenizer.cache_clear()
    name = "vocab.json" if name == "merges.txt" else name
    path = str(folder / name)
    form = TokenizerSpec(path, "<|startoftext|>", "<|endoftext|>", "!", "clip")
    place = folder.parent / "spec"
    place.mkdir(exist_ok=True)
    spec = helpers.make_spec(place, tokenizer=form)
    tokens = MODALITIES["text"].preprocess("a photo of a star", spec)["tokens"]
    assert 0 <= tokens.min()
    assert tokens.max() <= load_tokenizer(form).highest


def _read_config(folder: pathlib.Path, name: str) -> None:
    config.to_json(config.load(folder / name))


def _read_results(folder: pathlib.Path, name: str) -> None:
    del name  # all files of a run are read
    run = runs.SweepRun("ridge", "random", 0, config.Config())
    other = run._replace(variant="comm")
    place = folder / "runs"
    for each in (run, other):
        (place / each.name).mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.json"):
            shutil.copy(path, place / each.name)
        # which are looked for, but not read
        (place / each.name / "predictions").mkdir(exist_ok=True)
        for stage in range(len(EXAMPLE)):
            (place / each.name / "predictions" / f"{stage:03d}.npz").touch()
    report = aggregate.aggregate(runs.finished([run, other], place), "comm")
    aggregate.csv_of(report)
    aggregate.to_markdown(report)
    json.dumps(report, allow_nan=False)


TARGETS = {
    "image": Target(_pictures, _media("image")),
    "video": Target(_clips, _media("video")),
    "audio": Target(_sounds, _media("audio")),
    "depth": Target(_depths, _media("depth")),
    "text": Target(_sentences, _media("text")),
    "table": Target(_tables, _read_table),
    "manifest": Target(_manifests, _read_manifest),
    "parquet": Target(_shards_of_rows, _read_shard),
    "encoder": Target(_encoder, _read_encoder),
    "shards": Target(_shards, _read_shards),
    "torch": Target(_torch_archives, _read_tensors),
    "npz": Target(_arrays, _read_tensors),
    "tokenizer": Target(_tokenizers, _read_tokenizer),
    "config": Target(_configs, _read_config),
    "results": Target(_results, _read_results),
}
