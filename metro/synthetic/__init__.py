"""Synthetic people and hands: rendered, exactly annotated, made from nothing but a seed."""
