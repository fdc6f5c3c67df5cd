"""The learner's arithmetic in C++ for small networks on a CPU: compiled once on the machine it runs on.

It computes what `esper.simic` computes in torch, for multilayer perceptrons; the tests hold the two together. A network
is a sequence of layers (`kernels/layer.h`), each kind in a header of its own.
"""
