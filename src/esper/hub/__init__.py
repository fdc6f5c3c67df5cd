"""Runs on the Hugging Face Hub: what of a run is shared, its model card, pushing and pulling."""
