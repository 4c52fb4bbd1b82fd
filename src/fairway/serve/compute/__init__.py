"""Answers computed: one version in memory, on LiteRT or TensorFlow, and the way of requests to it."""
