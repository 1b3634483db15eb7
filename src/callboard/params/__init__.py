"""Turns params.yaml into frozen, checked objects: unknown keys, wrong types, contradictions are refused.

Takes YAML trees, gives section classes that every later room may hold; imports core alone, and no torch.
"""
