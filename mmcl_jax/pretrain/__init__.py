"""Training of the built-in encoder: `python -m mmcl_jax.pretrain`."""
