"""EfficientNet-Lite0 and MiniLM-L6 as one encoder, without training; see `conse`.

The first is a classifier of the 1,000 classes of ImageNet, the second a sentence
encoder, by which the names of these classes are embedded.

References:
    Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural
    Networks, 2019; Wang et al., MiniLM: Deep Self-Attention Distillation for
    Task-Agnostic Compression of Pre-Trained Transformers, 2020.
"""

import functools
import math
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from mmcl_jax.models.pretrained import inputs, packages, sentence_bert, tensors
from mmcl_jax.models.pretrained.efficientnet import LITE0, stem_weights
from mmcl_jax.models.pretrained.family import Checkpoint, Family
from mmcl_jax.models.pretrained.mapped import MappedTensors
from mmcl_jax.models.pretrained.weight_layout import (
    TORCH_LINEAR,
    Layout,
    Rule,
    Tensors,
    stem,
)
from mmcl_jax.models.specs import ConseSpec, two_towers
from mmcl_jax.models.stem_specs import StemSpec

# The embedding of each line of `imagenet_classes.txt`, by MiniLM.
NAMES = pathlib.Path(__file__).parents[1] / "imagenet_classes.npz"
LICENSES = (
    "EfficientNet-Lite0: Apache-2.0, trained on ImageNet",
    "all-MiniLM-L6-v2: Apache-2.0",
)
_STEM = "stem."
_SIDE = 224
# Of pixels; EfficientNet-Lite's own code has 127 and 128, of 255.
_MEAN, _STD = 127 / 255, 128 / 255
_PICTURES = inputs.Pictures(((_MEAN, _MEAN, _MEAN), (_STD, _STD, _STD)))
# Chosen on the training pictures of Caltech-101: 10 classes place a picture as well as
# any number from 5 to 50. With more of its place in it, an embedding of features is
# worse in ridge regression, and with less it is no better.
_TOP, _SHARE = 10, 0.3
# Of cosines: to sentences alone 20 would fit best; to pictures, whose cosines the share
# makes smaller, 55.
_SCALE = 40.0


def layout(spec: ConseSpec) -> Layout:
    """Returns the layout, of the tensors of both files and of the names."""
    return {
        **sentence_bert.layout("text"),
        **stem("visual/stem", _STEM, spec.stem),
        "visual/head/classes/kernel": Rule(("_fc.weight",), TORCH_LINEAR),
        "visual/head/classes/bias": Rule(("_fc.bias",)),
        "visual/head/names": Rule(("names",)),
    }


def _stem_takes(
    classifier: Tensors, spec: StemSpec
) -> dict[str, Callable[[], np.ndarray]]:
    """Returns functions that read the stem, with its batch norms folded in."""

    @functools.cache
    def folded() -> dict[str, np.ndarray]:
        weights = stem_weights(classifier, spec)
        return {
            _STEM + jax.tree_util.keystr(path, simple=True, separator="."): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(weights)
        }

    names = (rule.names[0] for rule in stem("", _STEM, spec).values())
    return {name: lambda name=name: folded()[name] for name in names}


def _recognizes(weights: pathlib.Path, classifier: Tensors) -> bool:
    del weights
    return "_conv_head.weight" in classifier


def _open(weights: pathlib.Path, classifier: Tensors) -> Checkpoint:
    words = packages.weights_of(packages.MINILM)
    text, tokenizer = sentence_bert.read_text(words.parent)
    names = tensors.read(NAMES)
    classes, width = names["names"].shape
    visual = ConseSpec(LITE0, (_SIDE, _SIDE), classes, width, _TOP, _SHARE)
    takes = {
        **sentence_bert.takes(tensors.read(words), text, visual.embedding),
        **_stem_takes(classifier, visual.stem),
    }
    for source, taken in (
        (classifier, ("_fc.weight", "_fc.bias")),
        (names, ("names",)),
    ):
        takes |= {name: functools.partial(source.__getitem__, name) for name in taken}
    takes["log_scale"] = lambda: np.array(math.log(_SCALE), np.float32)
    return Checkpoint(
        "lite0_minilm",
        two_towers(visual, text, visual.embedding),
        inputs.drawn(_SIDE, text, tokenizer, _PICTURES),
        layout(visual),
        MappedTensors(weights, takes),
        weights,
        sentence_bert.UNUSED,
        (*sentence_bert.files(words.parent, tokenizer), words, weights, NAMES),
        LICENSES,
    )


FAMILY = Family(_recognizes, _open)
