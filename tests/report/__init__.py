"""Tests of honing.report."""
