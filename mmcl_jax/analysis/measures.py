"""The numbers of a run that methods are compared by, and what they are called."""

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
    "bytes_per_class": "bytes a class",
    "bytes_per_task": "bytes a task",
    "forwards_per_step": "forwards a step",
    "forwards_per_prediction": "forwards a prediction",
    "seconds": "seconds",
}
# what counts first: among all classes met, modality predicted
SPACE, ROUTE = "union", "predicted"
# Among which classes, and whether the modality is given. Given a modality, heads answer
# among its classes, methods that compare with class texts still among all: only
# `within` then compares like with like.
VIEWS = {
    "predicted": (SPACE, ROUTE),
    "given": (SPACE, "given"),
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
    """Returns the cost of a run; `seconds` are of all its parts but the report."""
    parts = {k: v for k, v in results["cost"]["seconds"].items() if k != "report"}
    found = results["cost"] | {"seconds": sum(parts.values())}
    return {name: _number(found[name]) for name in COSTS}


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
