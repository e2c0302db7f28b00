"""The tasks of models: what is asked, what is answered, and how far two answers are apart."""
