"""Code that all programs share: flags, shorthands of configs, messages."""
