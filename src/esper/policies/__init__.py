"""A trained policy: saved, loaded, evaluated, exported."""
