"""How the steps of a training are spread over tasks: one small file for each way."""
