"""Frequency analysis of sampling: how much power lies in which band of frequencies, at which time, and after surgery."""
