"""The measures by which methods are compared, and their titles."""

from typing import Any

METRICS = {
    "last_average_accuracy": "last average",
    "average_incremental_accuracy": "average incremental",
    "forgetting_chaudhry": "forgetting",
    "excess_forgetting": "excess forgetting",
    "learning_accuracy": "learning accuracy",
}
COSTS = {
    "parameters_trained": "parameters",
    "bytes_remembered": "bytes",
    "bytes_per_class": "bytes per class",
    "bytes_per_task": "bytes per task",
    "forwards_per_step": "forwards per step",
    "forwards_per_prediction": "forwards per prediction",
    "seconds": "seconds",
}
# the main setting, one rule for all methods: modality predicted, and the answer among
# the classes of the modality that was
SPACE, ROUTE = "routed", "predicted"
# samples of a modality whose embeddings under two snapshots are compared, at most
EMBEDDED = 256
# label space, and whether the modality is given
VIEWS = {
    "routed": (SPACE, ROUTE),
    "predicted": ("union", ROUTE),
    "given": ("union", "given"),
    "within": ("modality", "given"),
}


def measured(results: dict[str, Any]) -> dict[str, float]:
    """Returns the metrics of a run by `view/metric`, see `VIEWS`."""
    return {
        f"{view}/{name}": _number(results["metrics"][space][route][name])
        for view, (space, route) in VIEWS.items()
        for name in METRICS
    }


def cost(results: dict[str, Any]) -> dict[str, float]:
    """Returns the cost of a run; `seconds` covers all its parts but the report."""
    parts = {k: v for k, v in results["cost"]["seconds"].items() if k != "report"}
    found = results["cost"] | {"seconds": sum(parts.values())}
    return {name: _number(found[name]) for name in COSTS}


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
