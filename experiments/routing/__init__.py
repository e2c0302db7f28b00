"""Routing over many nodes, simulated: each model at its homes, against Ray Serve's rule for `@serve.multiplexed`."""
