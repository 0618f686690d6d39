"""What is written of a run can be used without this package, and says the same."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax import export

import mmcl_jax
from mmcl_jax.errors import ConfigError, DataError
from mmcl_jax.parallel import compiling
from mmcl_jax.serving import card, exported, from_workdir, program, standalone
from mmcl_jax.types import Context
from tests import by_hand, helpers

pytestmark = pytest.mark.xdist_group("export")

# the code of the export alone is there
LABEL = """
import json, sys
for name in ("absl", "chex", "flax", "grain", "jaxtyping", "optax", "orbax"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
import mmcl_jax
assert mmcl_jax.__file__.startswith(sys.argv[1])
from mmcl_jax.modalities.base import TextReference
from mmcl_jax.serving import exported
model = exported.load(sys.argv[1])
paths, given = json.loads(sys.argv[2]), []
said = model.predict([*paths, TextReference("a sentence")], top=99, reject=0.05)
for path, each in zip(paths, said):
    given += model.predict([path], each.modality, top=99)
print(json.dumps([each.row() for each in [*said, *given]]))
"""


@pytest.fixture(scope="module")
def classifier(whole_run: helpers.Finished) -> from_workdir.Classifier:
    assert whole_run.code == 0, whole_run.errors
    return from_workdir.load(whole_run.workdir)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Three files of each modality."""
    folder = tmp_path_factory.mktemp("files")
    return {
        modality: [helpers.write(folder / modality, modality, i) for i in range(3)]
        for modality in helpers.WRITERS
    }


def agree(ours: dict, theirs: dict) -> None:
    for name in ("source", "modality", "taken_for", "oddities", "unknown"):
        assert ours.get(name) == theirs.get(name)
    assert [o["name"] for o in ours["labels"]] == [t["name"] for t in theirs["labels"]]
    for name in ("novelty", "percentile"):
        assert theirs.get(name) == pytest.approx(ours.get(name), rel=1e-4)
    probabilities = [
        [each["probability"] for each in x["labels"]] for x in (ours, theirs)
    ]
    np.testing.assert_allclose(*probabilities, atol=1e-5)


@pytest.mark.slow
def test_the_export_says_what_the_classifier_says(
    run_of_all: helpers.Finished,
    export_of_all: pathlib.Path,
    files: dict[str, list[str]],
    tmp_path: pathlib.Path,
) -> None:
    paths = sum(files.values(), [])
    variables = helpers.environment()
    del variables["PYTHONPATH"]
    done = subprocess.run(
        [sys.executable, "-c", LABEL, str(export_of_all), json.dumps(paths)],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    classifier = from_workdir.load(run_of_all.workdir)
    sentence = mmcl_jax.TextReference("a sentence")
    ours = classifier.predict([*paths, sentence], top=99, reject=0.05)
    for modality, own in files.items():
        ours += classifier.predict(own, modality, top=99)
    assert {each.modality for each in ours} == set(helpers.WRITERS)
    for one, other in zip(ours, theirs, strict=True):
        agree(json.loads(json.dumps(one.row())), other)


@pytest.mark.slow
@pytest.mark.full("export")
def test_prompts_and_layers_are_exported(
    classifier: from_workdir.Classifier,
    files: dict[str, list[str]],
    tmp_path: pathlib.Path,
) -> None:
    standalone.write(classifier, tmp_path / "out", ["video"], {"given": 0.5})
    model = exported.load(tmp_path / "out")
    assert classifier.gauge.view == "layers"
    assert (model.classes, model.modalities) == (classifier.classes, ("video",))
    ours = classifier.predict(files["video"], top=99, reject=0.05)
    theirs = model.predict(files["video"], top=99, reject=0.05)
    for one, other in zip(ours, theirs, strict=True):
        agree(one.row(), other.row())
    with pytest.raises(DataError, match="no program for image, but for video"):
        model.predict(files["image"])
    with pytest.raises(ConfigError, match="no program for image"):
        model.predict(files["video"], "image")
    with pytest.raises(ConfigError, match="1.5 is no share"):
        model.predict(files["video"], reject=1.5)
    # without a router, tokenizer or another program
    assert not (tmp_path / "out" / "tokenizer").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: mmcl_jax\ntags:\n- continual-learning")
    assert "50.0 % with it given" in card
    assert str(classifier.run.config.encoder.path) not in card


def test_what_is_not_as_it_was_written_is_not_loaded(
    export_of_all: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = shutil.copytree(export_of_all, tmp_path / "export")
    described = json.loads((folder / "model.json").read_text())

    def refused(changes: dict, message: str) -> None:
        (folder / "model.json").write_text(json.dumps(described | changes))
        with pytest.raises(DataError, match=message):
            exported.load(folder)

    refused({"format": 0}, "format 0, expected 1")
    refused({"files": {"../x": ""}}, "'../x' is no file of the folder")
    refused({"files": {"/etc/passwd": ""}}, "is no file of the folder")
    image = described["programs"]["image"]
    other = {"image": image | {"preprocessing": "image-0"}}
    refused({"programs": other}, "image is preprocessed as image-0, by this version")
    refused({"programs": {"smell": image}}, "smell is a modality of its owner's own")
    refused({"programs": {"image": {}}}, "cannot be decoded")
    refused({"programs": {"image": image | {"file": "../x"}}}, "'../x' is not among")
    refused({"weights": ["../x"]}, "'../x' is not among its files")
    (folder / "model.safetensors").write_bytes(b"?")
    refused({}, "model.safetensors: its SHA-256 is")
    (folder / "model.safetensors").unlink()
    refused({}, "model.safetensors: no such file")
    with pytest.raises(
        DataError, match=r"model\.json: no such file; expected an export"
    ):
        exported.load(tmp_path)


@pytest.mark.slow
def test_weights_are_read_without_a_program(export_of_all: pathlib.Path) -> None:
    compiled: list[str] = []
    with compiling.watched(compiled.append, lambda _: None):
        exported.load(export_of_all)
    assert compiled == []


def test_a_program_that_calls_other_code_is_refused(tmp_path: pathlib.Path) -> None:
    name = "xla_ffi_python_cpu_callback"
    shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    call = jax.jit(jax.ffi.ffi_call(name, shape))
    checks = [export.DisabledSafetyCheck.custom_call(name)]
    made = export.export(call, platforms=["cpu"], disabled_checks=checks)(shape)
    path = tmp_path / "image.stablehlo"
    path.write_bytes(made.serialize())
    with pytest.raises(DataError, match=f"it calls {name}, which is no solver"):
        exported._program(path)


@pytest.mark.slow
def test_the_command_writes_every_array(
    whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    flags = (f"--workdir={whole_run.workdir}", f"--out={tmp_path / 'out'}")
    done = helpers.start(
        "-m", "mmcl_jax.export", flags=(*flags, "--snapshot=2"), workdir=tmp_path
    ).finish()
    assert (done.code, done.errors) == (0, "note: snapshot 2 of 3\n")
    names = ("README.md", "encoder.safetensors", "image.stablehlo", "mmcl_jax")
    names += ("model.json", "model.safetensors", "requirements.txt", "video.stablehlo")
    assert done.output.split() == [str(tmp_path / "out" / name) for name in names]
    written = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    stored = helpers.snapshot(whole_run.workdir, 1)
    text = written.pop("text")
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, rtol=1e-5)
    assert len(written) == len(stored)
    for path, array in stored.items():
        name = path.strip("[']").replace("']['", "/")
        np.testing.assert_array_equal(written[name], array, err_msg=name)
    described = json.loads((tmp_path / "out" / "model.json").read_text())
    frozen = safetensors.numpy.load_file(tmp_path / "out" / "encoder.safetensors")
    assert described["tensors"].keys() == {*written, *frozen, "text"}
    assert all(0 <= share <= 1 for share in described["accuracy"].values())
    assert described["accuracy"].keys() == {"given", "predicted"}
    for name, array in (written | frozen).items():
        assert described["tensors"][name]["shape"] == list(array.shape)
        assert described["tensors"][name]["dtype"] == array.dtype.name
    assert [slot["learnt"] for slot in described["slots"]] == [True] * 4 + [False] * 2
    again = helpers.start(
        "-m", "mmcl_jax.export", flags=flags, workdir=tmp_path
    ).finish()
    assert again.code == 2
    assert "not an empty folder" in again.errors


def test_names_do_nothing_in_a_card() -> None:
    name = "<script>|`x`\n# *y* [z](http://a)"
    shown = card.escaped(name)
    assert "\n" not in shown
    for character in "<>|`#*[]()":
        assert shown.count(character) == shown.count(f"\\{character}")


@pytest.mark.slow
def test_a_modality_that_was_not_met_is_not_exported(
    classifier: from_workdir.Classifier, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ConfigError, match="audio has not been seen by snapshot 3"):
        standalone.write(classifier, tmp_path / "out", ["audio"])
    with pytest.raises(ConfigError, match="did you mean 'image'"):
        standalone.write(classifier, tmp_path / "out", ["imag"])
    assert not list(tmp_path.iterdir())


def test_the_licence_of_an_encoder(tmp_path: pathlib.Path) -> None:
    assert card.license_of("builtin") == "apache-2.0"
    assert card.license_of(str(tmp_path)) is None
    readme = tmp_path / "README.md"
    readme.write_text("---\nlicense: mit\ntags:\n- clip\n---\n# CLIP\n")
    assert card.license_of(str(tmp_path)) == "mit"
    for other in ("# CLIP\nlicense: mit\n", "---\nlicense: [mit, gpl]\n---\n"):
        readme.write_text(other)
        assert card.license_of(str(tmp_path)) is None


@pytest.mark.slow
@pytest.mark.full("export")
def test_any_number_of_samples_fits(classifier: from_workdir.Classifier) -> None:
    parts = standalone.parts(classifier)
    made, weights = program.make(parts, "image"), program.weights(parts)
    *_, argument = made.in_avals
    assert str(argument.shape[0]) == "b"
    pixels = jax.random.normal(jax.random.key(0), (3, *argument.shape[1:]))
    together, alone = made.call(weights, pixels), made.call(weights, pixels[:1])
    assert together.keys() == program.OUTPUTS.keys()
    for name in ("logits", "routed_logits"):
        # logits are up to 10: what float32 rounds is a few 1e-6, of small ones as well
        np.testing.assert_allclose(
            alone[name][0], together[name][0], rtol=1e-4, atol=2e-5
        )


def test_a_modality_alone_in_its_tower_takes_any_number_of_rows(benches) -> None:
    bench = benches("comm")
    stage, state = bench.last_of("text"), bench.learner.init(bench.room)
    at = Context(
        bench.frozen, state.memory, jnp.int32(stage), bench.classes(stage), "predict"
    )
    (rows,) = export.symbolic_shape("b")
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype),
        bench.rows(stage),
    )
    predict = by_hand.predict(bench.method, bench.model)
    said = jax.eval_shape(lambda b: predict(state.params, at, b), batch)
    assert said.logits.shape == (rows, len(bench.slots))
