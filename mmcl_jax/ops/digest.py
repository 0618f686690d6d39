"""A digest of arrays that is computed on the devices that hold them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from mmcl_jax.types import PyTree

# independent 32-bit sums: one alone would collide by chance too often
_SUMS = 4


def digest(tree: PyTree) -> UInt32[Array, " sums"]:
    """Returns 128 bits that differ where two trees of one structure differ in any bit.

    Different trees have equal digests by chance alone, like files with equal hashes.
    Each word is mixed with its place, by the finalizer of MurmurHash3, and the results
    are added modulo 2^32; so the order of the additions does not matter.

    Raises:
        TypeError: a leaf is neither of truth values nor of a type of floating point
            that float32 holds.
    """
    total = jnp.zeros(_SUMS, jnp.uint32)
    for i, leaf in enumerate(map(jnp.asarray, jax.tree.leaves(tree))):
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        if jnp.promote_types(leaf.dtype, jnp.float32) != jnp.float32 or not (
            floating or leaf.dtype == jnp.bool_
        ):
            raise TypeError(f"an injection of {leaf.dtype}, not of float32")
        bits = jax.lax.bitcast_convert_type(
            leaf.astype(jnp.float32), jnp.uint32
        ).reshape(-1)
        place = jnp.arange(bits.size, dtype=jnp.uint32) * jnp.uint32(0x9E3779B1)
        for k in range(_SUMS):
            salt = jnp.uint32((0x85EBCA6B * (_SUMS * i + k + 1)) % 2**32)
            word = _mixed(_mixed(place + salt) ^ bits)
            total = total.at[k].add(jnp.sum(word, dtype=jnp.uint32))
    return total


def _mixed(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
