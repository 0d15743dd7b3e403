"""Tests of honing.merging."""
