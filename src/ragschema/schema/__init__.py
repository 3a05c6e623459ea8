"""The schema as the models declare it: tables, functions and triggers, rules between rows."""
