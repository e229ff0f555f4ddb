"""The layer that a method works at, by default and as given."""

from expunge.core.contracts import Model
from expunge.core.errors import BadInput


def choose_layer(model: Model, layer: int | None) -> int:
    """Return the layer's index: as given, or a quarter of the way up. Raises BadInput."""
    count = len(model.blocks)
    if layer is None:
        return min(count - 1, max(1, round(0.25 * count)))
    if not 0 <= layer < count:
        raise BadInput.of("method.layer", layer, f"is outside the model's {count} layers", f"give 0 to {count - 1}")
    return layer
