"""Frequency analysis of sampling: how much power lies in which band of frequencies, when, and after surgery."""
