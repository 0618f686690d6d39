"""What the axes of every method's arrays stand for."""

import itertools

import pytest

from mmcl_jax import config
from mmcl_jax.analysis import array_axes
from mmcl_jax.methods.registry import METHODS
from mmcl_jax.training.build import build_model, method_of
from mmcl_jax.types import Capacity


@pytest.mark.parametrize("name", METHODS)
def test_axes_are_found_for_every_method(name: str, encoder):
    made = config.Config()
    model = build_model(encoder)
    options = config.MethodOptions(name=name)
    made = config.Config(method=options)
    found = array_axes.find(method_of(made), model, Capacity(classes=50, stages=10))
    for axis in itertools.chain.from_iterable(found.values()):
        expected = {
            "modality": {model.modalities, ("text",), model.modalities[:1]}
            | {tuple(m for m in model.modalities if m != "text")},
            "stage": {tuple(str(k + 1) for k in range(10))},
            "layer": {("0",), ("0", "1")},
        }
        assert axis.names in expected[axis.kind]
    if name == "comm":
        visual = tuple(m for m in model.modalities if m != "text")
        assert found["params/adapters/visual/prompts"] == (
            array_axes.Axis("modality", 0, visual),
            array_axes.Axis("layer", 1, ("0", "1")),
        )
    if name == "s_prompts":
        kinds = [axis.kind for axis in found["params/visual/prompts"]]
        assert kinds == ["stage", "layer"]
