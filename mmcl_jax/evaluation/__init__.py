"""How predictions are scored: label spaces, metrics, calibration, cost."""
