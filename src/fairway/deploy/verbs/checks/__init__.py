"""What `fairway doctor` looks at, a module per subject."""
