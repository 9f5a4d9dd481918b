"""Check whether a heatmap can be trusted."""
