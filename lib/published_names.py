"""The model strings of the nearest-category paper, `LOSS-vtor2-ARCH` (its page, section 3.2), as settings of a training."""

import re

from lib.errors import UsageError

FORM = re.compile(r"(?:(adv)|trades(\d+(?:\.\d+)?)|(mixup))?(?:K(\d+))?ce-vtor2-(.+)")


def settings(text: str) -> dict:
    """model_type, loss, beta and attack_steps as far as a string like `trades6ce-vtor2-WRN_40_10` sets them; else {}.

    Raises `UsageError` for a string of this form with another loss.
    """
    if "-vtor2-" not in text:
        return {}
    match = FORM.fullmatch(text)
    if not match:
        raise UsageError(f"type {text}: its loss is none of ce, advce, trades<beta>ce, mixupce")
    adversarial, beta, mixed, steps, architecture = match.groups()
    found = {"model_type": architecture, "loss": "at" if adversarial else "trades" if beta else "mixup" if mixed else "ce"}
    return found | ({"beta": float(beta)} if beta else {}) | ({"attack_steps": int(steps)} if steps else {})
