"""Attacks on inputs, one a file, without Lightning."""
