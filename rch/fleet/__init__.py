"""Inventory (declared) and observed facts -> Workers."""
