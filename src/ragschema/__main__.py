"""The command ``rag``, as ``python -m ragschema``."""

from ragschema.cli import main

main()
