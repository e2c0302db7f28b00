"""The bodies that existing clients send and expect, each apart from the models that answer them."""
