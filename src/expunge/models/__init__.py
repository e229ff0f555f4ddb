"""Model families behind one interface: what a method sees of a model, and no more."""
