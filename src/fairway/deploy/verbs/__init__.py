"""What is done with an environment on a cluster, a module for each command and what these share."""
