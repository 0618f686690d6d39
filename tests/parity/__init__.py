"""Frozen towers against the models that published them."""
