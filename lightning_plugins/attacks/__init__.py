"""Attacks on the inputs of networks, without Lightning."""
