"""Terrace: a tiered store for the KV cache of LLM inference engines.

Importing this package loads neither the native library nor any engine.
"""

__version__ = "0.1.0"
