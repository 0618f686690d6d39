"""Writing an encoder in the layout of Hugging Face's `CLIPModel`."""

import json
import pathlib

import numpy as np
import safetensors.numpy

from mmcl_jax.models.pretrained import huggingface, weights_by_layout
from mmcl_jax.models.specs import EncoderSpec, TowerSpec, VisualSpec
from mmcl_jax.types import PyTree


def save(
    folder: str | pathlib.Path,
    spec: EncoderSpec,
    frozen: PyTree,
    preprocessing: dict,
    dtype: np.typing.DTypeLike = np.float32,
) -> None:
    """Writes `config.json` and `model.safetensors`, which `load` reads.

    Args:
        folder: Output folder, created if necessary; the caller must add
            `tokenizer.json`.
        spec: Shape of an encoder, as `specs.clip` returns it.
        frozen: Weights of the encoder.
        preprocessing: Fields of `InputSpec` that the files do not hold otherwise.
        dtype: Type of the stored numbers; `load` gives float32 of any.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(spec) | {"preprocessing": preprocessing}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {
        name: tensor.astype(dtype)
        for name, tensor in weights_by_layout.write(
            spec, huggingface.clip_layout(spec), frozen
        ).items()
    }
    safetensors.numpy.save_file(tensors, str(folder / "model.safetensors"))


def _config(spec: EncoderSpec) -> dict:
    visual, text = spec.reader("visual"), spec.text
    assert isinstance(visual, VisualSpec)
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": spec.embedding,
        "vision_config": _trunk(visual.trunk)
        | {"image_size": visual.image_size[0], "patch_size": visual.patch_size}
        | _stem(visual),
        "text_config": _trunk(text.trunk)
        | {
            "vocab_size": text.vocabulary,
            "max_position_embeddings": text.context_length,
            "eos_token_id": text.end_token,
        },
    }


def _stem(spec: VisualSpec) -> dict:
    if spec.stem is None:
        return {}
    stages = [stage._asdict() for stage in spec.stem.stages]
    stem = {"first": spec.stem.first, "stages": stages, "outputs": spec.stem.outputs}
    return {"stem": stem, "patch_stride": spec.stride}


def _trunk(spec: TowerSpec) -> dict:
    return {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.mlp_width,
        "hidden_act": spec.activation,
        "layer_norm_eps": spec.norm_epsilon,
    }
