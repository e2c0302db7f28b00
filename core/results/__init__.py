"""What a run leaves: the types of its records, and its folder. Imports `errors` and `names` only."""
