"""Who a compiler is: what other folders may ask (the workstation and the worker must use the same code)."""

from rch.worker._identity import NODE_QUESTION, c_identity, rust_identity

__all__ = ["NODE_QUESTION", "c_identity", "rust_identity"]
