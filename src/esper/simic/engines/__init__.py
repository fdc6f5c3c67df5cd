"""What computes an update: C++ kernels, torch, and the choice among them."""
