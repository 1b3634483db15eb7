"""Turns params.yaml into frozen, checked objects: unknown keys, wrong types, contradictions are refused.

Takes YAML trees, returns section classes that every later room can use; imports only core, and no torch.
"""
