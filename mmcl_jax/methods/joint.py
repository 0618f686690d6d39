"""Joint tuning on all tasks at once: an upper bound."""

from mmcl_jax.methods import sequential

ON_JOINED_STREAM = True
LEARNS_CLASS_CONTEXT = True
make = sequential.make
