"""What all programs share: flags, shorthands of configs, messages."""
