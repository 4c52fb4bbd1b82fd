"""The web UI: draw a digit, see it recognised, and see where the model comes from."""
