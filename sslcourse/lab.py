"""What a lab notebook asks of the course: hints, predictions on record, results, and a time budget.

    hint("nt_xent", 1)                           a first hint; levels 2 and 3 say more
    predict("temperature", {"best_tau": 0.2})    before the run; the first answer stays on record
    record_result("temperature", {...})          after it: prediction and result side by side
    Budget(40)                                   a clock that stops a training loop and says so

Predictions and results are kept in `my_record.json` beside the notebook.
"""

import json
import os
import time
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from sslcourse.errors import InputError, unknown

FAST = "SSLCOURSE_FAST"  # set in tests: budgets shrink to a few seconds
_RECORD = "my_record.json"
_FAST_S = 4.0


def hints() -> dict[str, list[str]]:
    """Three hints an exercise, by its name."""
    found: dict[str, list[str]] = {}
    for file in (resources.files("sslcourse") / "hints").iterdir():
        if file.name.endswith(".toml"):
            found |= {name: entry["levels"] for name, entry in tomllib.loads(file.read_text("utf-8")).items()}
    return found


def hint(exercise: str = "", level: int = 1) -> None:
    """Show hint 1, 2 or 3 of an exercise. Opening one leaves a mark in the notebook; it costs no points.

    Without an exercise it says how to ask.

    Raises:
        InputError: an exercise without hints, or another level.
    """
    known = hints()
    if not exercise:
        print('hint("NAME", 1) opens the first of three hints for the function NAME.')
        return
    if exercise not in known:
        raise unknown("exercise", exercise, known)
    if level not in (1, 2, 3):
        raise InputError(f"hint level {level}: there are levels 1, 2 and 3.")
    text = f"**Hint {level} of 3 for `{exercise}`.** {known[exercise][level - 1]}"
    try:
        from IPython.core.getipython import get_ipython
        from IPython.display import publish_display_data
    except ImportError:
        print(text)
        return
    if get_ipython() is None:
        print(text)
        return
    mark = {"sslcourse_hint": {"exercise": exercise, "level": level}}
    publish_display_data({"text/markdown": text, "text/plain": text}, metadata=mark)


def predict(experiment: str, prediction: dict[str, Any]) -> None:
    """Put a prediction on record. The first complete one counts; later ones are kept beside it.

    Raises:
        InputError: a value that is still None or empty.
    """
    empty = [key for key, value in prediction.items() if value is None or value == ""]
    if empty:
        raise InputError(f"your prediction for '{experiment}' is not complete: fill in {', '.join(empty)}.")
    record = _read()
    entry = record.setdefault(experiment, {"predictions": []})
    if "result" in entry and prediction not in entry["predictions"]:
        print("The experiment has run already: your first prediction stays the one on record.")
    if prediction not in entry["predictions"]:
        entry["predictions"].append(prediction)
    _write(record)
    print(f"On record: {entry['predictions'][0]}")


def record_result(experiment: str, result: dict[str, float], *, show: bool = True) -> None:
    """Keep a result and show it under the prediction; `show=False` where the notebook prints it in its own way."""
    record = _read()
    entry = record.setdefault(experiment, {"predictions": []})
    entry["result"] = {key: round(float(value), 4) for key, value in result.items()}
    _write(record)
    if not show:
        return
    for key, value in (entry["predictions"] or [{}])[0].items():
        print(f"you predicted   {key}: {value}")
    for key, value in entry["result"].items():
        print(f"measured        {key}: {value:.3f}")


class Budget:
    """A clock for a training loop: `if budget.is_over("step 12"): break`.

    Args:
        seconds: how long the loop may take. With the environment variable SSLCOURSE_FAST set, 4 seconds at most.
    """

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise InputError(f"Budget got seconds={seconds}: a loop needs more than 0 seconds.")
        self.seconds = min(seconds, _FAST_S) if os.environ.get(FAST) else seconds
        self._start = time.monotonic()

    def is_over(self, where: str = "") -> bool:
        """Whether the time is up; says so, once it is."""
        if time.monotonic() - self._start < self.seconds:
            return False
        print(f"The budget of {self.seconds:g} s is over ({where}): stopped early, so this is a shorter run.")
        return True


def _read() -> dict[str, Any]:
    path = Path(_RECORD)
    try:
        record = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise InputError(f"{path} is damaged; delete it and run your prediction cell again.")
    return record


def _write(record: dict[str, Any]) -> None:
    part = Path(_RECORD + ".part")
    try:
        part.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
        part.replace(_RECORD)
    except OSError as error:
        print(f"(not saved: {_RECORD} cannot be written here: {error.strerror})")
