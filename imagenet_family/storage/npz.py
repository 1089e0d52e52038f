"""What NumPy's files of arrays raise when they are read without pickle and are damaged."""

import lzma
import tokenize
import zipfile
import zlib

# What NumPy, zipfile and pyarrow raise, beside OSError, for files of arrays that are damaged,
# encrypted, pickled or absurdly large. An array's header is Python, and the parser has its own.
DAMAGED = (
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
