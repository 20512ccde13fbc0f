"""Cells of a sweep, and what they say: tables, claims, pages, the paper's own numbers."""
