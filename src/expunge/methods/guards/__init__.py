"""Guards: the weights stay, the answers change at inference."""
