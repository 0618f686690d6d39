"""How predictions are evaluated: label spaces, metrics, calibration, cost."""
