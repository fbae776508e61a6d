"""The soak: reloads, kills and resizing under load, with every request and every span accounted for."""
