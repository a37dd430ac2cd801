"""Where checkpoints are kept: a local folder, or a bucket of an object storage."""
