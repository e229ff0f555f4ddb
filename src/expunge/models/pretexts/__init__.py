"""Tasks that teach an encoder without labels: one file each, and the folder's listing is the registry."""
