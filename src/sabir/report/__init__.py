"""Records in, documents and tables out: pure functions, nothing is read or printed here."""
