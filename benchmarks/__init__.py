"""Speeds, measured side by side. Nothing here is a test: no figure fails."""
