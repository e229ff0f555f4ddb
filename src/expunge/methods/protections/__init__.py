"""Changes of pictures that make what is trained on them useless elsewhere, one file each (`methods/protecting.py`)."""
