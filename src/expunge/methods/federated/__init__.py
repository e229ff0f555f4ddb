"""Methods that erase a client of a federation, or some of its rows: one file each."""
