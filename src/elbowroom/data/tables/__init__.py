"""Tables: kinds of columns, schemas, and how they are inferred."""
