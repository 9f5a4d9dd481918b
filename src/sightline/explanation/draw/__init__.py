"""Draw heatmaps, captions and contact sheets."""
