"""What is written of a run can be used without this package, and says the same."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax import export

from mmcl_jax.errors import ConfigError
from mmcl_jax.modalities import MODALITIES
from mmcl_jax.serving import from_workdir, standalone
from mmcl_jax.types import Context
from tests import by_hand, helpers

pytest.importorskip("flatbuffers", reason="JAX serializes programs with flatbuffers")
pytestmark = pytest.mark.xdist_group("export")

FILES = (
    standalone.CARD,
    standalone.PROGRAM,
    standalone.DESCRIPTION,
    standalone.TENSORS,
)
# mmcl_jax cannot be imported there
CALL = """
import sys
sys.modules["mmcl_jax"] = None
import pathlib
import jax
import jax.export
import numpy as np
folder = pathlib.Path(sys.argv[1])
program = bytearray((folder / "classifier.stablehlo").read_bytes())
classifier = jax.export.deserialize(program)
assert set(classifier.platforms) == {"cpu", "cuda", "tpu"}
logits, probabilities = classifier.call(np.load(sys.argv[2]))
np.savez(sys.argv[3], logits=logits, probabilities=probabilities)
"""


@pytest.fixture(scope="module")
def classifier(whole_run: helpers.Finished) -> from_workdir.Classifier:
    assert whole_run.code == 0, whole_run.errors
    return from_workdir.load(whole_run.workdir)


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["image", "video"])
def test_the_program_says_what_the_classifier_says(
    classifier: from_workdir.Classifier, modality: str, tmp_path: pathlib.Path
) -> None:
    paths = [helpers.write(tmp_path / "in", modality, variant) for variant in range(3)]
    standalone.write(classifier, tmp_path / "out", modality)
    kind, spec = MODALITIES[modality], classifier.run.encoder.inputs
    inputs = [kind.preprocess(kind.decode(path, spec), spec) for path in paths]
    np.save(tmp_path / "in.npy", np.stack([row["pixels"] for row in inputs]))
    done = subprocess.run(
        [sys.executable, "-c", CALL, "out", "in.npy", "said.npz"],
        cwd=tmp_path,
        env=helpers.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "said.npz") as said:
        logits, probabilities = said["logits"], said["probabilities"]
    ours = classifier.logits(paths, modality)
    scale = np.abs(ours).max()
    np.testing.assert_allclose(logits / scale, ours / scale, atol=1e-5)
    described = json.loads((tmp_path / "out" / "model.json").read_text())
    names = [slot["name"] for slot in described["slots"]]
    can_win = np.array([slot["can_win"] for slot in described["slots"]])
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert not probabilities[:, ~can_win].any()
    for row, labelled in zip(
        probabilities, classifier.predict(paths, modality), strict=True
    ):
        assert names[row.argmax()] == labelled.labels[0].name
        assert row.max() == pytest.approx(labelled.labels[0].probability, abs=1e-4)


@pytest.mark.slow
def test_the_command_writes_every_array(
    whole_run: helpers.Finished, tmp_path: pathlib.Path
) -> None:
    flags = (f"--workdir={whole_run.workdir}", f"--out={tmp_path / 'out'}")
    done = helpers.start(
        "-m", "mmcl_jax.export", flags=(*flags, "--snapshot=2"), workdir=tmp_path
    ).finish()
    assert (done.code, done.errors) == (0, "note: snapshot 2 of 3\n")
    assert done.output.split() == [
        str(tmp_path / "out" / name)
        for name in (
            standalone.CARD,
            standalone.PROGRAM,
            standalone.DESCRIPTION,
            standalone.TENSORS,
        )
    ]
    written = safetensors.numpy.load_file(tmp_path / "out" / standalone.TENSORS)
    stored = helpers.snapshot(whole_run.workdir, 1)
    text = written.pop("text")
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, rtol=1e-5)
    assert len(written) == len(stored)
    for path, array in stored.items():
        name = path.strip("[']").replace("']['", "/")
        np.testing.assert_array_equal(written[name], array, err_msg=name)
    described = json.loads((tmp_path / "out" / standalone.DESCRIPTION).read_text())
    assert described["tensors"].keys() == {*written, "text"}
    for name, array in written.items():
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
    shown = standalone.escaped(name)
    assert "\n" not in shown
    for character in "<>|`#*[]()":
        assert shown.count(character) == shown.count(f"\\{character}")


@pytest.mark.slow
def test_a_modality_that_was_not_met_has_no_program(
    classifier: from_workdir.Classifier,
) -> None:
    with pytest.raises(ConfigError, match="audio has not been seen by snapshot 3"):
        standalone.program(classifier, "audio")
    with pytest.raises(ConfigError, match="did you mean 'image'"):
        standalone.program(classifier, "imag")


@pytest.mark.slow
def test_any_number_of_samples_fits(classifier: from_workdir.Classifier) -> None:
    exported = standalone.program(classifier, "image")
    (argument,) = exported.in_avals
    assert str(argument.shape[0]) == "b"
    pixels = jax.random.normal(jax.random.key(0), (3, *argument.shape[1:]))
    together, _ = exported.call(pixels)
    alone, _ = exported.call(pixels[:1])
    # logits are up to 10: what float32 rounds is a few 1e-6, of small ones as well
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-4, atol=2e-5)


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
