"""What is said of findings: one file for each subject."""
