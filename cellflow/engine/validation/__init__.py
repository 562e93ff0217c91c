"""Scores that can be trusted: OOF, calibration, comparison."""
