"""The types of a registry for TypeScript, as RivetKit's client sees them."""

from trivet.typescript.module import declarations

__all__ = ["declarations"]
