"""Towers in bfloat16 on an accelerator: `python -m tests.bench.gpu`.

B/16 and L/14 with 8 deep prompts, batches up to 256: pictures a second, utilization by
model FLOPs (`flops.py`: recomputation does not count), peak memory, and which library
attention goes through. What bfloat16 gives is compared with float32 first.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcl_jax.models import encoder, visual
from mmcl_jax.models.injection import Injection
from mmcl_jax.models.sizes import SIZES as SPECS
from mmcl_jax.models.specs import with_trunks
from mmcl_jax.planning import flops, roofline
from tests.bench import timing
from tests.bench.encoders import Tower, tower

# towers, batches, ways to save memory in the backward pass
SIZES = {
    "full": (("b16", "l14"), (32, 64, 128, 256), ("nothing", "attention")),
    "tiny": (("clip_tiny",), (2,), ("nothing", "attention")),
}
_PROMPTS = 8
_LIBRARIES = "cudnn|triton|cublas|__ynn_fusion|__onednn"
# cosine of embeddings in both types
_ALIKE = 0.99


def main() -> None:
    given = timing.arguments(__doc__, tuple(SIZES))
    names, batches, policies = SIZES[given.size]
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        for rows in batches:
            for remat in policies:
                title = f"{name}, {rows} pictures, backward recomputes {remat}"
                tables[title] = measured(name, rows, remat, given.rounds)
    timing.report(tables, given)


def measured(name: str, rows: int, remat: str, rounds: int) -> list[dict[str, Any]]:
    """Returns a row each for the forward pass, and forward and backward."""
    there = tower(name, rows, _PROMPTS)
    spec = with_trunks(SPECS[name], remat=remat)
    reader = spec.reader("visual")
    half = jax.tree_util.tree_map_with_path(
        lambda path, x: x.astype(encoder.leaf_dtype(_name(path), "bfloat16")),
        there.weights,
    )

    def embed(prompts, weights, pixels):
        shape = (len(pixels), *prompts.shape)
        injection = Injection(prompts=jnp.broadcast_to(prompts, shape))
        return visual.embed(reader, weights, pixels, injection)

    def total(prompts, weights, pixels, target):
        return (embed(prompts, weights, pixels) * target).sum()

    check(embed, there, half)
    pixels, prompts, target = map(
        jnp.asarray, (there.pixels, there.prompts, there.target)
    )
    arguments = {
        "forward": (prompts, half, pixels),
        "forward and backward": (prompts, half, pixels, target),
    }
    functions = {"forward": embed, "forward and backward": jax.grad(total)}
    compiled = {
        key: jax.jit(function).lower(*arguments[key]).compile()
        for key, function in functions.items()
    }
    timings = timing.take_turns(
        {key: lambda key=key: compiled[key](*arguments[key]) for key in compiled},
        rounds,
    )
    counted = {"forward": (flops.forward,)}
    counted["forward and backward"] = (flops.forward, flops.backward)
    table = []
    for key, timing_of in timings.items():
        work = rows * sum(f(spec, "image", 1, _PROMPTS) for f in counted[key])
        memory: Any = compiled[key].memory_analysis()
        used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        table.append(
            {
                "function": key,
                "ms": round(1e3 * timing_of.median, 2),
                "quartiles": f"{1e3 * timing_of.low:.2f} - {1e3 * timing_of.high:.2f}",
                "pictures/s": round(rows / timing_of.median, 1),
                "TFLOP/s": round(work / timing_of.median / 1e12, 3),
                "utilization": utilization(work / timing_of.median),
                "peak MiB": round(used / 2**20),
                "libraries": ", ".join(libraries(compiled[key].as_text())),
            }
        )
    return table


def check(embed: Any, there: Tower, half: Any) -> None:
    """Raises if bfloat16 gives other embeddings than float32 at full precision."""
    few = jnp.asarray(there.pixels[:4])
    prompts = jnp.asarray(there.prompts)
    with jax.default_matmul_precision("highest"):
        wanted = np.asarray(jax.jit(embed)(prompts, there.weights, few))
    found = np.asarray(jax.jit(embed)(prompts, half, few))
    alike = (wanted * found).sum(1)
    assert alike.min() > _ALIKE, f"cosines of bfloat16 and float32: {alike}"


def utilization(rate: float) -> str:
    """Returns the share of an H100's dense bfloat16 peak; of other devices nothing."""
    if "H100" not in jax.devices()[0].device_kind:
        return ""
    return f"{rate / roofline.CHIPS['h100'].peak:.0%}"


def libraries(program: str) -> list[str]:
    """Returns what a compiled program calls for its products and fusions."""
    return sorted(set(re.findall(_LIBRARIES, program)))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


if __name__ == "__main__":
    main()
