"""TensorFlow Serving's contract, as pure functions on plain data: paths, bodies, signatures, status codes."""
