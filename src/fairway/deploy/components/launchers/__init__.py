"""What starts the tasks of a training: Kubeflow's operator, plain Jobs, or a JobSet."""
