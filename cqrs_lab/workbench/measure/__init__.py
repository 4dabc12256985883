"""Measurements: how long servings take, what they cost, and what follows from that for a load."""
