"""Our own speed, as ratios within one run."""
