"""Where a batch runs: a local subprocess today, Kubernetes jobs on a cluster."""
