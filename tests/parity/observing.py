"""Random weights for reference models, prompts inside them, and what they return.

Weights are float32, as they are stored; models run in float64, so that what differs
from them is the error of what is compared, and fixtures are the same on every machine.
"""

import contextlib
import functools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.parity.cases import Expected

Embed = Callable[[torch.Tensor], torch.Tensor]

# embeddings are as small as trained ones: a first layer norm whose input is small
# tells one epsilon from another
_EMBEDDING = 0.05
_SHIFT = 0.3
_VECTORS = ("probe", "latent", "bias_k", "bias_v")
_NORMS = (nn.LayerNorm,)


def seed(name: str) -> int:
    """Returns a seed of its own for each name."""
    return zlib.crc32(name.encode())


@torch.no_grad()
def randomize(model: nn.Module, name: str) -> nn.Module:
    """Draws every parameter, none of them zero or one, and returns the model.

    Linear maps keep the size of what they map; biases, scales and shifts of layer
    norms are drawn too, since a loader that forgets one of them would not be found out
    by the values that training starts from.
    """
    generator = torch.Generator().manual_seed(seed(name))
    for owner in model.modules():
        for key, parameter in owner.named_parameters(recurse=False):
            draw = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(_scaled(owner, key, draw))
            parameter.requires_grad_(False)
    return model.eval()


def _scaled(owner: nn.Module, key: str, draw: torch.Tensor) -> torch.Tensor:
    if isinstance(owner, _NORMS):
        return draw * _SHIFT + (1 if key == "weight" else 0)
    if key in _VECTORS:
        return draw
    if "logit" in key:
        return 2.5 + 0.1 * draw
    is_patch = isinstance(owner, (nn.Conv2d, nn.Conv3d))
    if key.endswith("bias"):
        return draw * (_EMBEDDING if is_patch else _SHIFT)
    if isinstance(owner, nn.Embedding) or "embed" in key or "token" in key:
        return draw * _EMBEDDING
    if "proj" in key and not isinstance(owner, nn.MultiheadAttention):
        return draw * draw.shape[0] ** -0.5  # open_clip's, stored as [in, out]
    scale = draw[0].numel() ** -0.5
    return draw * scale * (_EMBEDDING if is_patch else 1)


@contextlib.contextmanager
def recomputed(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Runs blocks again in the backward pass, so that large ones fit into memory."""
    blocks = list(blocks)
    for block in blocks:
        run = functools.partial(checkpoint, block.forward, use_reentrant=False)
        block.forward = run
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


@contextlib.contextmanager
def prompted(blocks: nn.ModuleList, prompts: torch.Tensor, at: int) -> Iterator[None]:
    """Runs a model's own blocks with prompts among their tokens.

    They are inserted before the first block, replaced before each of the next ones
    and taken away behind the last.

    Args:
        blocks: of one tower, each from tokens `[rows, n, width]` to such tokens.
        prompts: `[b, layers, p, width]`; `rows` are one or more of each `b` in turn.
        at: row in front of which they stand.
    """
    length = prompts.shape[2]

    def put(layer: int):
        def hook(module: nn.Module, args: tuple) -> tuple:
            x, *rest = args
            rows = prompts[:, layer].repeat_interleave(len(x) // len(prompts), 0)
            behind = x[:, at + (length if layer else 0) :]
            return (torch.cat([x[:, :at], rows, behind], 1), *rest)

        return hook

    def take(module: nn.Module, args: tuple, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :at], x[:, at + length :]], 1)

    handles = [b.register_forward_pre_hook(put(i)) for i, b in enumerate(blocks)]
    handles.append(blocks[-1].register_forward_hook(take))
    try:
        with recomputed(blocks):
            yield
    finally:
        for handle in handles:
            handle.remove()


def unit(x: torch.Tensor) -> torch.Tensor:
    """Returns the rows of `x`, each of length one."""
    return x / x.norm(dim=-1, keepdim=True)


def draw_pixels(name: str, *shape: int) -> np.ndarray:
    """Returns prepared pixels, `[b, frames, h, w, c]`, few different ones."""
    rng = np.random.default_rng(seed(f"{name}/pixels"))
    return (rng.integers(-8, 9, shape) / 4).astype(np.float32)


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    """Returns pixels `[b, frames, h, w, c]` as `[b, frames, c, h, w]` of float64."""
    return torch.from_numpy(pixels).double().permute(0, 1, 4, 2, 3)


@contextlib.contextmanager
def context_in(words: nn.Module, vectors: torch.Tensor, at: int) -> Iterator[None]:
    """Puts vectors in the place of word embeddings, before positions are added.

    As CoOp does, with the words that it calls placeholders: KaiyangZhou/CoOp,
    `trainers/coop.py`, `PromptLearner.forward`.

    Args:
        words: the table of word embeddings.
        vectors: `[b, p, width]`.
        at: the first token that they replace.
    """

    def put(module: nn.Module, args: tuple, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :at], vectors, x[:, at + vectors.shape[1] :]], 1)

    handle = words.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


def observe_text(
    name: str, model: nn.Module, embed: Embed, tokens: np.ndarray, at: int = 1
) -> Expected:
    """Returns what a model says of sentences, without a learnt context and with one.

    Args:
        name: gives the seed of context and cotangent.
        model: holds the one table of word embeddings.
        embed: from ids to raw embeddings.
        tokens: `[b, n]`.
        at: the first token that a context replaces.
    """
    ids = torch.from_numpy(tokens).long()
    tables = ("token_embedding", "word_embeddings")
    (words,) = (m for n, m in model.named_modules() if n.endswith(tables))
    with torch.no_grad():
        raw = embed(ids)
    shape = (len(tokens), 2, words.weight.shape[1])
    vectors, cotangent = _draw(f"{name}/context", (shape, 0.2), (raw.shape, 1.0))
    vectors.requires_grad_()
    with context_in(words, vectors, at):
        moved = unit(embed(ids))
    return _moved({"tokens": tokens}, raw, vectors, moved, cotangent)


def observe_pixels(
    name: str,
    embed: Embed,
    pixels: np.ndarray,
    prepared: torch.Tensor,
    width: int,
    layers: int,
    inside: Callable[[torch.Tensor], contextlib.AbstractContextManager],
) -> Expected:
    """Returns what a model says of pixels, without prompts and with them.

    Args:
        name: gives the seed of prompts and cotangent.
        embed: from `prepared` to raw embeddings.
        pixels: `[b, frames, h, w, c]`.
        prepared: the same as the model takes them.
        width: of the tower's tokens.
        layers: of the tower.
        inside: puts prompts `[b, layers, p, width]` into the tower.
    """
    with torch.no_grad():
        raw = embed(prepared)
    shape = (len(pixels), layers, 2, width)
    prompts, cotangent = _draw(f"{name}/prompts", (shape, 0.5), (raw.shape, 1.0))
    prompts.requires_grad_()
    with inside(prompts):
        moved = unit(embed(prepared))
        return _moved({"pixels": pixels}, raw, prompts, moved, cotangent)


def _draw(name: str, *shapes: tuple[Sequence[int], float]) -> list[torch.Tensor]:
    """Returns normal draws of each shape and deviation, float32 kept in float64."""
    rng = np.random.default_rng(seed(name))
    draws = (rng.normal(size=shape, scale=scale) for shape, scale in shapes)
    return [torch.from_numpy(draw.astype(np.float32)).double() for draw in draws]


def _moved(
    inputs: dict[str, np.ndarray],
    raw: torch.Tensor,
    vectors: torch.Tensor,
    moved: torch.Tensor,
    cotangent: torch.Tensor,
) -> Expected:
    """Returns what is expected, with the gradient with respect to vectors."""
    (moved * cotangent).sum().backward()
    assert vectors.grad is not None
    # or else a comparison would say little
    assert (moved - unit(raw)).norm() > 0.01 and vectors.grad.norm() > 0.01
    return _rounded(inputs, raw, unit(raw), vectors, moved, cotangent, vectors.grad)


def _rounded(inputs: dict[str, np.ndarray], *values: torch.Tensor) -> Expected:
    assert all(value.dtype == torch.float64 for value in values)
    return Expected(inputs, *(value.detach().float().numpy() for value in values))
