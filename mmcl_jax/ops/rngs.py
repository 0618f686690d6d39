"""Randomness by name: keys come from a seed, a purpose and indices, never from state.

No random state is stored, so a resumed run draws what an uninterrupted one would have.
"""

import zlib

import jax
import numpy as np

from mmcl_jax.types import Key


def key(seed: int, purpose: str, *indices: int | jax.Array) -> Key:
    """Returns the key of `purpose` at `indices`, for instance a task and a step."""
    k = named(jax.random.key(seed), purpose)
    for index in indices:
        k = jax.random.fold_in(k, index)
    return k


def named(key: Key, name: str) -> Key:
    """Returns the key of what has a name, such as a tower, whatever else there is."""
    # a checksum, since `hash` of a text differs between processes
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def host_seed(seed: int, purpose: str, *indices: int) -> int:
    """Returns a 31-bit seed for the data pipeline, which draws on the host.

    >>> host_seed(0, "order", 1, 2) == host_seed(0, "order", 1, 2)
    True
    """
    words = [seed, zlib.crc32(purpose.encode()), *indices]
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)
