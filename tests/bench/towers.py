"""Our visual towers against CLIP of `transformers`: `python -m tests.bench.towers`.

Forward, and forward and backward to deep prompts, of ViT-B/16 at 224 pixels with a
batch of 8 and of the built-in encoder with one of 64; in PyTorch as it is and, where a
C++ compiler is, with `torch.compile`. Both sides have the same weights and inputs, and
are compared before they are timed.
"""

import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from mmcl_jax.models import visual
from mmcl_jax.models.injection import Injection
from tests.bench import timing, torch_tower
from tests.bench.encoders import Tower, tower

SIZES = {
    "full": (("b16", 8), ("builtin", 64)),
    "builtin": (("builtin", 64),),
    "b16": (("b16", 8),),
    "tiny": (("clip_tiny", 2),),
}
_TOLERANCE = 1e-4


def main() -> None:
    given = timing.arguments(__doc__, tuple(SIZES))
    tables = {}
    for name, rows in SIZES[given.size]:
        there = tower(name, rows)
        compiles = given.size != "tiny" and shutil.which("g++") is not None
        for what, contestants in contests(there, compiles).items():
            timings = timing.take_turns(contestants, given.rounds)
            title = f"{name}, {rows} pictures, {what}"
            tables[title] = timing.rows(timings, "PyTorch")
        forward, both = (rows[0] for rows in list(tables.values())[-2:])
        tables[f"{name}: forward and backward in forwards"] = [
            {unit: round(both[unit] / forward[unit], 2) for unit in ("ms", "CPU ms")}
        ]
    timing.report(
        tables, given, torch=torch.__version__, threads=torch.get_num_threads()
    )


def contests(there: Tower, compiles: bool) -> dict[str, dict[str, Callable[[], Any]]]:
    """Returns who takes turns in what, after a check that they agree."""
    ours, ours_both = _in_jax(there)
    model = torch_tower.build(there.spec, there.weights, there.embedding)
    theirs, theirs_both = _in_torch(there, model, torch_tower.embed)
    np.testing.assert_allclose(ours(), theirs(), atol=_TOLERANCE)
    gradient, wanted = np.asarray(ours_both()), theirs_both().numpy()
    np.testing.assert_allclose(
        gradient, wanted, rtol=0, atol=_TOLERANCE * abs(wanted).max()
    )
    forward = {"mmcl_jax": ours, "PyTorch": theirs}
    both = {"mmcl_jax": ours_both, "PyTorch": theirs_both}
    if compiles:
        compiled = torch.compile(torch_tower.embed)
        forward["torch.compile"], both["torch.compile"] = _in_torch(
            there, model, compiled
        )
    return {"forward": forward, "forward and backward to deep prompts": both}


def _in_jax(there: Tower) -> tuple[Callable[[], Any], Callable[[], Any]]:
    def embed(prompts, weights, pixels):
        shape = (len(pixels), *prompts.shape)
        injection = Injection(prompts=jnp.broadcast_to(prompts, shape))
        return visual.embed(there.spec, weights, pixels, injection)

    def total(prompts, weights, pixels, target):
        return (embed(prompts, weights, pixels) * target).sum()

    forward, both = jax.jit(embed), jax.jit(jax.grad(total))
    pixels, prompts, target = map(
        jnp.asarray, (there.pixels, there.prompts, there.target)
    )
    return (
        lambda: forward(prompts, there.weights, pixels),
        lambda: both(prompts, there.weights, pixels, target),
    )


def _in_torch(
    there: Tower, model: Any, embed: Callable
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    pixels = torch.tensor(there.pixels[:, 0]).permute(0, 3, 1, 2).contiguous()
    prompts = torch.tensor(there.prompts, requires_grad=True)
    target = torch.tensor(there.target)

    def injected() -> torch.Tensor:
        return prompts.expand(len(pixels), -1, -1, -1)

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return embed(model, pixels, injected())

    def both() -> torch.Tensor:
        total = (embed(model, pixels, injected()) * target).sum()
        (gradient,) = torch.autograd.grad(total, prompts)
        return gradient

    return forward, both


if __name__ == "__main__":
    main()
