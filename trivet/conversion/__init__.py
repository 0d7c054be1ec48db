"""Between users' Python types and the plain values that travel or are stored, with cattrs."""

from trivet.conversion.converter import WireConverter
from trivet.conversion.errors import MAX_ISSUES, Issue, ValidationError
from trivet.conversion.names import camel_case, same_name, wire_name
from trivet.conversion.remembering import StateEncoder
from trivet.conversion.signature import BoundArgs, CallSignature
from trivet.conversion.state import StateCodec, StateConverter, dump_values, load_values

__all__ = [
    "MAX_ISSUES",
    "BoundArgs",
    "CallSignature",
    "Issue",
    "StateCodec",
    "StateConverter",
    "StateEncoder",
    "ValidationError",
    "WireConverter",
    "camel_case",
    "dump_values",
    "load_values",
    "same_name",
    "wire_name",
]
