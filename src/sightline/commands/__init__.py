"""The commands, one verb per file; `api` holds their Python signatures."""
