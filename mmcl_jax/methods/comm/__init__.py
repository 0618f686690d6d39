"""COMM, as we read it: the method and its parts."""

from mmcl_jax.methods.comm.method import make
from mmcl_jax.methods.comm.options import Options

LEARNS_CLASS_CONTEXT = True
__all__ = ["LEARNS_CLASS_CONTEXT", "Options", "make"]
