"""What makes files of this repository: its documentation's reference, and the embedded classifier."""
