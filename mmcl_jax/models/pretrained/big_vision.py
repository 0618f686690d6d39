"""SigLIP encoders in the layout of big_vision: one `.npz` file without a config."""

import pathlib

from mmcl_jax.errors import DataError
from mmcl_jax.models.pretrained import inputs
from mmcl_jax.models.pretrained.family import Checkpoint, Family, picture_side
from mmcl_jax.models.pretrained.weight_layout import (
    ONE_IN_FRONT,
    SAME,
    TWO_IN_FRONT,
    Form,
    Layout,
    Rule,
    Tensors,
)
from mmcl_jax.models.specs import EncoderSpec, TowerSpec, VisualSpec, siglip

UNUSED = ("params/b",)
_IMAGE, _TEXT = "params/img/Transformer/", "params/txt/Encoder_0/"
_HEAD = "params/img/MAPHead_0/"
_ATTENTION, _MLP = "MultiHeadDotProductAttention_0/", "MlpBlock_0/Dense_"
_EPSILON = 1e-6


def spec(tensors: Tensors, path: str) -> EncoderSpec:
    """Returns the shape of an encoder, derived from the shapes of its tensors.

    Raises:
        DataError: Required tensors are missing.
    """
    try:
        kernel = tensors["params/img/embedding/kernel"].shape
        if len(kernel) == 2:
            raise DataError(
                f"{path}: SigLIP 2 for pictures of any shape (NaFlex), which is not "
                "supported; give a checkpoint of one resolution"
            )
        positions = tensors["params/img/pos_embedding"].shape
        words = tensors["params/txt/Embed_0/embedding"].shape
        context = tensors["params/txt/pos_embedding"].shape
        visual, text = _trunk(tensors, _IMAGE), _trunk(tensors, _TEXT)
        patch, side = kernel[0], round(positions[1] ** 0.5)
        size = patch * side
        return siglip(visual, text, (size, size), patch, words[0], context[1])
    except (KeyError, IndexError, ValueError) as error:
        raise DataError(
            f"{path}: not a SigLIP encoder of big_vision: {error} is missing or has "
            "another shape"
        ) from error


def _trunk(tensors: Tensors, at: str) -> TowerSpec:
    first = _block(tensors, at).format(0)
    query = tensors[f"{first}{_ATTENTION}query/kernel"].shape
    inner = tensors[f"{first}{_MLP}0/kernel"].shape
    if _is_stacked(tensors, at):
        layers, *query = query
        inner = inner[1:]
    else:
        numbers = {
            n.removeprefix(f"{at}encoderblock_").partition("/")[0]
            for n in tensors
            if n.startswith(f"{at}encoderblock_")
        }
        layers = len(numbers)
    width, heads, _ = query
    return TowerSpec(width, layers, heads, inner[1], "gelu_tanh", _EPSILON)


def _is_stacked(tensors: Tensors, at: str) -> bool:
    return any(name.startswith(f"{at}encoderblock/") for name in tensors)


def _block(tensors: Tensors, at: str) -> str:
    stacked = _is_stacked(tensors, at)
    return f"{at}encoderblock/" if stacked else f"{at}encoderblock_{{}}/"


def layout(spec: EncoderSpec, tensors: Tensors) -> Layout:
    """Returns the layout; blocks are stored separately, or stacked by a scan."""
    heads, text = spec.tower("visual").heads, "params/txt/"
    return {
        # (p, p, 3, w); in a row of our matrix channels come first.
        "visual/patch": Rule(("params/img/embedding/kernel",), _patch_form(spec)),
        "visual/patch_bias": Rule(("params/img/embedding/bias",)),
        "visual/positions": Rule(("params/img/pos_embedding",), ONE_IN_FRONT),
        **_norm("visual/post_norm", f"{_IMAGE}encoder_norm/"),
        **_blocks("visual", _block(tensors, _IMAGE), heads),
        "visual/head/probe": Rule((f"{_HEAD}probe",), TWO_IN_FRONT),
        **_attention("visual/head", f"{_HEAD}{_ATTENTION}", heads),
        **_norm("visual/head/norm", f"{_HEAD}LayerNorm_0/"),
        **_linear("visual/head/mlp_in", f"{_HEAD}{_MLP}0/"),
        **_linear("visual/head/mlp_out", f"{_HEAD}{_MLP}1/"),
        "text/tokens": Rule((f"{text}Embed_0/embedding",)),
        "text/positions": Rule((f"{text}pos_embedding",), ONE_IN_FRONT),
        **_norm("text/final_norm", f"{_TEXT}encoder_norm/"),
        **_blocks("text", _block(tensors, _TEXT), spec.tower("text").heads),
        "text/projection": Rule((f"{text}head/kernel",)),
        "text/projection_bias": Rule((f"{text}head/bias",)),
        "log_scale": Rule(("params/t",), ONE_IN_FRONT),
    }


def _patch_form(spec: EncoderSpec) -> Form:
    visual = spec.reader("visual")
    assert isinstance(visual, VisualSpec)
    patch = visual.patch_size
    return Form(lambda leaf: (patch, patch, 3, leaf[1]), (2, 0, 1, 3))


def _blocks(tower: str, at: str, heads: int) -> Layout:
    ours = f"{tower}/blocks"
    return {
        **_norm(f"{ours}/norm1", f"{at}LayerNorm_0/"),
        **_norm(f"{ours}/norm2", f"{at}LayerNorm_1/"),
        **_attention(ours, f"{at}{_ATTENTION}", heads),
        **_linear(f"{ours}/mlp_in", f"{at}{_MLP}0/"),
        **_linear(f"{ours}/mlp_out", f"{at}{_MLP}1/"),
    }


def _attention(ours: str, at: str, heads: int) -> Layout:
    def apart(leaf: tuple[int, ...]) -> tuple[int, ...]:
        return (*leaf[:-1], heads, leaf[-1] // heads)

    def joined(leaf: tuple[int, ...]) -> tuple[int, ...]:
        return (heads, leaf[0] // heads, leaf[1])

    parts = ("query", "key", "value")
    return {
        f"{ours}/qkv/kernel": Rule(
            tuple(f"{at}{n}/kernel" for n in parts), Form(apart)
        ),
        f"{ours}/qkv/bias": Rule(tuple(f"{at}{n}/bias" for n in parts), Form(apart)),
        f"{ours}/out/kernel": Rule((f"{at}out/kernel",), Form(joined)),
        f"{ours}/out/bias": Rule((f"{at}out/bias",)),
    }


def _linear(ours: str, at: str) -> Layout:
    return {
        f"{ours}/kernel": Rule((f"{at}kernel",), SAME),
        f"{ours}/bias": Rule((f"{at}bias",)),
    }


def _norm(ours: str, at: str) -> Layout:
    return {
        f"{ours}/scale": Rule((f"{at}scale",)),
        f"{ours}/bias": Rule((f"{at}bias",)),
    }


def _recognizes(weights: pathlib.Path, tensors: Tensors) -> bool:
    del tensors
    return weights.suffix == ".npz"


def _open(weights: pathlib.Path, tensors: Tensors) -> Checkpoint:
    folder = weights.parent
    shape = spec(tensors, str(weights))
    tokenizer = inputs.siglip_tokenizer(folder, shape.text)
    size = picture_side(shape)
    fed = inputs.drawn(size, shape.text, tokenizer, inputs.siglip(tokenizer))
    return Checkpoint(
        "big_vision",
        shape,
        fed,
        layout(shape, tensors),
        tensors,
        weights,
        UNUSED,
        (pathlib.Path(tokenizer.path), weights),
    )


FAMILY = Family(_recognizes, _open)
