"""What changes a model: one file a method; the folder is the registry."""
