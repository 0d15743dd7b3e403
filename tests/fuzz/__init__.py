"""Files from strangers: malformed, hostile, or both."""
