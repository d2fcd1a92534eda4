"""Layers as different experiments name them, brought into one order: the cuts of a network, and modules inside of them."""


def within(layer: str, cuts: list[str]) -> str:
    """The innermost of the cuts that holds a module, or is it; "" if none does."""
    return max((cut for cut in cuts if layer == cut or layer.startswith(cut + ".")), key=len, default="")


def units(sequences: list[list[str]], cuts: list[str]) -> list[str]:
    """The cuts, and the modules outside of all of them, in an order that keeps that of every sequence of layers.

    A cut that holds others, a stage with its blocks, stands behind the last of them.
    """
    held = [[other, cut] for cut in cuts for other in cuts if other.startswith(cut + ".")]
    return merged(
        [*held, *(list(dict.fromkeys(within(layer, cuts) or layer for layer in sequence)) for sequence in sequences)]
    )


def merged(sequences: list[list[str]]) -> list[str]:
    """One order in which each sequence keeps its own; where they disagree, the earlier sequence has its way."""
    after: dict[str, set[str]] = {}
    for sequence in sequences:
        for one in sequence:
            after.setdefault(one, set())
        for one, other in zip(sequence, sequence[1:], strict=False):
            if not _reaches(after, other, one):
                after[one].add(other)
    order: list[str] = []
    while len(order) < len(after):
        waiting = {other for one in after if one not in order for other in after[one]}
        order.append(next(one for one in after if one not in order and one not in waiting))
    return order


def _reaches(after: dict[str, set[str]], start: str, goal: str) -> bool:
    seen, left = set(), [start]
    while left:
        one = left.pop()
        if one == goal:
            return True
        if one not in seen:
            seen.add(one)
            left += after.get(one, ())
    return False
