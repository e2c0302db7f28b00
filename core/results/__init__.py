"""What a run leaves: the types of its records, and its folder.

It imports the loose modules `errors` and `names`.
"""
