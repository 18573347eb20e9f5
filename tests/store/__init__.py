"""Tests of configstore.store."""
