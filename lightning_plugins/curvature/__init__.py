"""Hessian-vector products and what is computed from them, without Lightning."""
