"""SQL as text: splitting it into statements, and reading what a statement does."""
