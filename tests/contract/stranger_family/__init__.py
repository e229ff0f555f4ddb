"""Two model families as another package would bring them."""
