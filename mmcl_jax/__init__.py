"""Continual learning over many modalities, in JAX."""

__version__ = "0.1.0"
