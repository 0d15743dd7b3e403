"""From files and the Hub to Examples: whatever the bytes, the format and the columns are."""
