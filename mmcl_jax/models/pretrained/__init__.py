"""Readers of published encoders, one file a layout."""
