"""Tests of honing.evaluation."""
