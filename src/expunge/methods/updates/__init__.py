"""How one optimiser step gets its gradient."""
