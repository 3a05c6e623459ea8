"""``python -m ragschema`` is ``rag``."""

from ragschema.cli import main

main()
