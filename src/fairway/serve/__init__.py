"""The model server: versions on disk in, TensorFlow Serving's REST API out."""
