"""How bytes become a model: references, checkpoints, and one file per loader."""
