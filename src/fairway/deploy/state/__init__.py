"""What a cluster has of an environment, and what that means. Pure, but for taking the snapshot."""
