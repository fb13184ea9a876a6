"""Which calls get a span that is exported; metrics and health see all calls whatever is decided here."""
