"""A local page that shows runs while they train. It only reads."""
