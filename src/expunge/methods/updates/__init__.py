"""Updates: how one optimiser step gets its gradient."""
