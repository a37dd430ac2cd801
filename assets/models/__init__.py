"""Stage 1: which models there are, what they are made of and how much memory they need."""
