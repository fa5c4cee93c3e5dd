"""Settings under which the same value has the same text, whatever the database or the role sets."""

from __future__ import annotations

TEXT_FORM = {
    "DateStyle": "ISO, YMD",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    # An error, rather than rows that are silently left out.
    "row_security": "off",
    # Compiling costs more than it saves in statements this short.
    "jit": "off",
}
