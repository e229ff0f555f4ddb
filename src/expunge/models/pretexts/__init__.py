"""What an encoder learns without labels: one file each, and the folder's listing is the registry."""
