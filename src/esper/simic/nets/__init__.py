"""Networks: encoders, recurrent layers, distributions, normalization, and the actor-critic made of them."""
