"""Reading runs and drawing them. Never imports torch."""
