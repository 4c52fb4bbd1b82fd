"""TensorFlow Serving's contract, as pure functions: paths, bodies and messages to plain data, and back."""
