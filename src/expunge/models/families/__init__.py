"""The families of models that come with the tool: one file each, and the folder's listing is the registry."""
