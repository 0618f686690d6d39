"""The frozen encoder: its towers, adapters in them, and published weights."""
