"""What the bundled sample set is made of: patterns, and the tables that fill them."""
