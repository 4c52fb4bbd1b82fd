"""Processes on this machine: the whole story at once, and TensorBoard."""
