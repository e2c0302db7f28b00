"""Longer proofs: simulated machines whose truth is known, the shape of the code, an installation, the documentation."""
