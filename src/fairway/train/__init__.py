"""Training, from data to an exported version; `run` is where it starts."""
